package history

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func version(n uint64) *uint64 { return &n }
func text(s string) *string    { return &s }

func swap(expected uint64, checks, sets, value string) Operation {
	op := Operation{Kind: Swap, Expected: expected, Value: value}
	for _, key := range checks {
		op.Checks = append(op.Checks, string(key))
	}
	for _, key := range sets {
		op.Sets = append(op.Sets, string(key))
	}
	return op
}

func won(n uint64) *Answer  { return &Answer{Version: version(n), Won: true} }
func lost(n uint64) *Answer { return &Answer{Version: version(n)} }
func read(n uint64, a string) *Answer {
	return &Answer{Version: version(n), Values: map[string]string{"a": a}}
}

// A checker that accepts everything would prove nothing.
func TestWhatCanAndWhatCannotBe(t *testing.T) {
	start := State{Values: [4]string{"", "", "", "0"}}
	add := Operation{Kind: Add}
	reading := Operation{Kind: Read}
	put := Operation{Kind: Put, Sets: []string{"a"}, Value: "p"}
	cases := []struct {
		name   string
		events []Event
		can    bool
	}{
		{"one after the other", []Event{
			{0, swap(0, "", "a", "x"), won(1), 0, 1}, {1, reading, read(1, "x"), 2, 3}, {0, swap(0, "", "a", "y"), lost(1), 4, 5},
		}, true},
		{"both have won", []Event{{0, swap(0, "", "a", "x"), won(1), 0, 9}, {1, swap(0, "", "a", "y"), won(2), 0, 9}}, false},
		{"different keys may both win", []Event{{0, swap(0, "", "a", "x"), won(1), 0, 9}, {1, swap(0, "", "b", "y"), won(2), 0, 9}}, true},
		{"what was read had changed", []Event{{0, swap(0, "", "a", "x"), won(1), 0, 1}, {1, swap(0, "a", "b", "y"), won(2), 2, 3}}, false},
		{"nobody stood in the way", []Event{{0, swap(0, "", "a", "x"), lost(0), 0, 1}}, false},
		{"a read of the past", []Event{{0, swap(0, "", "a", "x"), won(1), 0, 1}, {1, reading, read(0, ""), 2, 3}}, false},
		{"a read beside the write", []Event{{0, swap(0, "", "a", "x"), won(1), 0, 3}, {1, reading, read(0, ""), 1, 2}}, true},
		{"a torn read", []Event{{0, swap(0, "", "a", "x"), won(1), 0, 9}, {1, reading, read(0, "x"), 0, 9}}, false},
		{"a lost addition", []Event{{0, add, &Answer{Value: text("1")}, 0, 9}, {1, add, &Answer{Value: text("1")}, 0, 9}}, false},
		{"two additions", []Event{{0, add, &Answer{Value: text("2")}, 0, 9}, {1, add, &Answer{Value: text("1")}, 0, 9}}, true},
		{"a killed call that was seen", []Event{{0, put, nil, 0, 0}, {1, reading, read(1, "p"), 2, 3}}, true},
		{"a killed call that was not", []Event{{0, put, nil, 0, 0}, {1, reading, read(0, ""), 2, 3}}, true},
		{"a killed call that came and went", []Event{
			{0, put, nil, 0, 0}, {1, reading, read(1, "p"), 2, 3}, {1, reading, read(0, ""), 4, 5},
		}, false},
		{"a killed call before it was made", []Event{{1, reading, read(1, "p"), 0, 1}, {0, put, nil, 2, 0}}, false},
		{"a call that was answered and not seen", []Event{{0, put, &Answer{}, 0, 1}, {1, reading, read(0, ""), 2, 3}}, false},
	}
	for _, c := range cases {
		if err := Check(start, c.events, time.Minute); c.can {
			require.NoError(t, err, c.name)
		} else {
			require.ErrorContains(t, err, "Illegal", c.name)
		}
	}
}
