package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const journal = `{"start": {"a": "", "b": "", "c": "", "n": "0"}, "version": 3}
{"return": "2", "at": 40, "answer": {"version": 4, "values": {"a": "x", "n": "0"}}}
{"call": "1", "at": 10, "client": 0, "operation": {"kind": "swap", "expected": 3, "sets": ["a"], "value": "x"}}
{"return": "1", "at": 20, "answer": {"version": 4, "won": true}}
{"call": "2", "at": 30, "client": 1, "operation": {"kind": "read"}}
{"call": "3", "at": 31, "client": 2, "operation": {"kind": "put", "sets": ["a"], "value": "y"}}
{"return": "3", "at": 32, "never": true}
{"call": "4", "at": 35, "client": 3, "operation": {"kind": "add"}}
`

func TestJournalsAreJoined(t *testing.T) {
	start, events, err := read(strings.NewReader(journal))
	require.NoError(t, err)
	require.EqualValues(t, 3, start.Version)
	require.Equal(t, "0", start.Values[3])
	require.Len(t, events, 3, "what never happened is left out")
	require.NoError(t, run(strings.NewReader(journal)))
}

func TestLiesAreFound(t *testing.T) {
	require.ErrorContains(t, run(strings.NewReader(strings.Replace(journal, `"a": "x"`, `"a": "z"`, 1))), "Illegal")
	require.ErrorContains(t, run(strings.NewReader(`{"call": "1"`)), "unexpected end")
	require.ErrorContains(t, run(strings.NewReader("")), "no line says")
}
