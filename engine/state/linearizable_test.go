package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// Histories of concurrent swaps, transactions and snapshots are those of a store that does one after the other.

// historyKeys are few, so that there are conflicts.
var historyKeys = []string{"a", "b", "c"}

// historyOp is what a client asked: a snapshot, or a swap that sets some keys and depends on others.
type historyOp struct {
	snapshot bool
	expected uint64
	checks   string
	sets     string
	value    string
}

// historyAnswer is what it was told.
type historyAnswer struct {
	version uint64
	won     bool
	values  string // of the snapshot
}

// historyState is the store as the checker has it.
type historyState struct {
	version   uint64
	values    [3]string
	changedAt [3]uint64
}

func (s historyState) String() string { return strings.Join(s.values[:], ",") }

var historyModel = porcupine.Model{
	Init: func() any { return historyState{} },
	Step: func(before, input, output any) (bool, any) {
		s, op, answer := before.(historyState), input.(historyOp), output.(historyAnswer)
		if op.snapshot {
			return answer.version == s.version && answer.values == s.String(), s
		}
		conflict := false
		for i, key := range historyKeys {
			if strings.Contains(op.checks+op.sets, key) && s.changedAt[i] > op.expected {
				conflict = true
			}
		}
		if conflict || op.sets == "" { // checks alone make no version
			return answer.won == !conflict && answer.version == s.version, s
		}
		s.version++
		for i, key := range historyKeys {
			if strings.Contains(op.sets, key) {
				s.values[i], s.changedAt[i] = op.value, s.version
			}
		}
		return answer.won && answer.version == s.version, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}

func TestHistoriesAreLinearizable(t *testing.T) {
	for round := range 40 {
		seed := rand.Uint64()
		history := runHistory(t, seed, 5, 40)
		if result := porcupine.CheckOperationsTimeout(historyModel, history, time.Minute); result != porcupine.Ok {
			t.Fatalf("round %d, seed %d: the history is not linearizable: %v", round, seed, result)
		}
	}
}

// A checker that accepts everything would prove nothing.
func TestTheCheckerSeesALostUpdate(t *testing.T) {
	both := func(client int) porcupine.Operation {
		return porcupine.Operation{
			ClientId: client, Input: historyOp{sets: "a", value: fmt.Sprint(client)},
			Call: int64(client), Output: historyAnswer{version: uint64(client), won: true}, Return: int64(10 + client),
		}
	}
	if porcupine.CheckOperations(historyModel, []porcupine.Operation{both(1), both(2)}) {
		t.Error("two swaps that expect version 0 have both won")
	}
}

// runHistory has clients do random things at once, and gives what they asked and were told, and when.
func runHistory(t *testing.T, seed uint64, clients, ops int) []porcupine.Operation {
	t.Helper()
	s := New()
	begin := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(client)))
			seen := uint64(0)
			for n := range ops {
				op := historyOp{snapshot: random.IntN(3) == 0, expected: seen, value: fmt.Sprintf("%d.%d", client, n)}
				if !op.snapshot {
					op.checks, op.sets = someOf(random, 1), someOf(random, 2)
				}
				called := time.Since(begin).Nanoseconds()
				answer, err := act(s, op)
				returned := time.Since(begin).Nanoseconds()
				if err != nil {
					t.Error(err)
					return
				}
				seen = answer.version
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: op, Call: called, Output: answer, Return: returned})
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return history
}

// someOf gives up to n keys.
func someOf(random *rand.Rand, n int) string {
	keys := slices.Clone(historyKeys)
	random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return strings.Join(keys[:random.IntN(n+1)], "")
}

func act(s *Store, op historyOp) (historyAnswer, error) {
	if op.snapshot {
		sn := s.Snapshot()
		defer sn.Release()
		var values []string
		for _, key := range historyKeys {
			_, b, _, _ := sn.Value(Path{key})
			values = append(values, string(b))
		}
		return historyAnswer{version: sn.Version(), values: strings.Join(values, ",")}, nil
	}
	var changes []Op
	for _, key := range op.checks {
		changes = append(changes, Op{Kind: Check, Path: Path{string(key)}})
	}
	for _, key := range op.sets {
		changes = append(changes, set(string(key), op.value))
	}
	version, err := s.CAS(op.expected, changes, false)
	if err != nil && !errors.As(err, new(*ConflictError)) {
		return historyAnswer{}, err
	}
	return historyAnswer{version: version, won: err == nil}, nil
}
