package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/theus-project/theus-go/internal/history"
)

// Histories of concurrent swaps, transactions and snapshots are those of a store that does one after the other.
func TestHistoriesAreLinearizable(t *testing.T) {
	for round := range 40 {
		seed := rand.Uint64()
		s := New()
		version, err := s.CAS(0, []Op{set("n", "0")}, false)
		if err != nil {
			t.Fatal(err)
		}
		start := history.State{Version: version, Values: [4]string{3: "0"}, ChangedAt: [4]uint64{3: version}}
		if err := history.Check(start, runHistory(t, s, seed, 5, 40), time.Minute); err != nil {
			t.Fatalf("round %d, seed %d: the history is not linearizable: %v", round, seed, err)
		}
	}
}

// runHistory has clients do random things at once, and gives what they asked and were told, and when.
func runHistory(t *testing.T, s *Store, seed uint64, clients, ops int) []history.Event {
	t.Helper()
	begin := time.Now()
	var mu sync.Mutex
	var events []history.Event
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(client)))
			seen := s.Version()
			for n := range ops {
				e := history.Event{Client: client, Operation: anything(random, seen, fmt.Sprintf("%d.%d", client, n))}
				e.Call = time.Since(begin).Nanoseconds()
				answer, err := act(s, e.Operation)
				e.Return = time.Since(begin).Nanoseconds()
				if err != nil {
					t.Error(err)
					return
				}
				e.Answer = &answer
				if answer.Version != nil {
					seen = *answer.Version
				}
				mu.Lock()
				events = append(events, e)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return events
}

// anything draws an operation of a client who has seen a version.
func anything(random *rand.Rand, seen uint64, value string) history.Operation {
	switch random.IntN(8) {
	case 0, 1, 2:
		return history.Operation{Kind: history.Read}
	case 3:
		return history.Operation{Kind: history.Add}
	case 4:
		return history.Operation{Kind: history.Put, Sets: someOf(random, 1, 2), Value: value}
	}
	return history.Operation{
		Kind: history.Swap, Expected: seen, Checks: someOf(random, 0, 1), Sets: someOf(random, 0, 2), Value: value,
	}
}

// someOf gives some of the keys but the last, which counts.
func someOf(random *rand.Rand, least, most int) []string {
	keys := slices.Clone(history.Keys[:3])
	random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys[:least+random.IntN(most-least+1)]
}

func act(s *Store, op history.Operation) (history.Answer, error) {
	switch op.Kind {
	case history.Read:
		return readAll(s), nil
	case history.Add:
		return addOne(s)
	}
	var changes []Op
	for _, key := range op.Checks {
		changes = append(changes, Op{Kind: Check, Path: Path{key}})
	}
	for _, key := range op.Sets {
		changes = append(changes, set(key, op.Value))
	}
	expected := op.Expected
	if op.Kind == history.Put {
		expected = AnyVersion
	}
	version, err := s.CAS(expected, changes, false)
	if err != nil && !errors.As(err, new(*ConflictError)) {
		return history.Answer{}, err
	}
	return history.Answer{Version: &version, Won: op.Kind == history.Swap && err == nil}, nil
}

func readAll(s *Store) history.Answer {
	sn := s.Snapshot()
	defer sn.Release()
	version := sn.Version()
	values := map[string]string{}
	for _, key := range history.Keys {
		_, b, _, _ := sn.Value(Path{key})
		values[key] = string(b)
	}
	return history.Answer{Version: &version, Values: values}
}

// addOne reads, adds and swaps until nobody came in between.
func addOne(s *Store) (history.Answer, error) {
	last := history.Keys[3]
	for {
		before := readAll(s)
		n, err := strconv.Atoi(before.Values[last])
		if err != nil {
			return history.Answer{}, err
		}
		sum := strconv.Itoa(n + 1)
		_, err = s.CAS(*before.Version, []Op{set(last, sum)}, false)
		if err == nil {
			return history.Answer{Value: &sum}, nil
		}
		if !errors.As(err, new(*ConflictError)) {
			return history.Answer{}, err
		}
	}
}
