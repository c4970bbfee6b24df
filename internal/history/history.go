// Package history says whether what several clients were told about the state, while they changed it all at once, can be the
// answers of a state that does one thing after the other (linearizability). The search is porcupine's; here is the model.
package history

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

// Keys of the state are few, so that clients meet. The last one holds a number, which Add counts up.
var Keys = []string{"a", "b", "c", "n"}

// Kind is what a client asked for.
type Kind string

// What clients ask for.
const (
	Read Kind = "read" // the version and all values, as of one moment
	Swap Kind = "swap" // set keys, unless one of them, or of those in Checks, changed after Expected
	Put  Kind = "put"  // set keys, whatever they are
	Add  Kind = "add"  // one more in the last key
)

// Operation is one call of a client.
type Operation struct {
	Kind     Kind     `json:"kind"`
	Expected uint64   `json:"expected"`
	Checks   []string `json:"checks"`
	Sets     []string `json:"sets"`
	Value    string   `json:"value"`
}

// Answer is what it was told. A client that was killed was told nothing.
type Answer struct {
	Version *uint64           `json:"version"` // the new one, or the current one; nil: was not told
	Won     bool              `json:"won"`     // of a swap
	Values  map[string]string `json:"values"`  // of a read
	Value   *string           `json:"value"`   // of an addition: what the key has now
}

// Event is a call with its answer and its times, on one clock.
type Event struct {
	Client       int
	Operation    Operation
	Answer       *Answer // nil: the client was killed first, so it may have happened at any time after the call, or not at all
	Call, Return int64
}

// State is what the checker holds the state for.
type State struct {
	Version   uint64
	Values    [4]string // by Keys
	ChangedAt [4]uint64
}

// set is the next version, in which keys have a value.
func (s State) set(keys []string, value string) State {
	s.Version++
	for i, key := range Keys {
		if slices.Contains(keys, key) {
			s.Values[i], s.ChangedAt[i] = value, s.Version
		}
	}
	return s
}

// after is what an operation makes of the state, and what it tells.
func (s State) after(op Operation) (State, Answer) {
	switch op.Kind {
	case Read:
		values := map[string]string{}
		for i, key := range Keys {
			values[key] = s.Values[i]
		}
		return s, Answer{Version: &s.Version, Values: values}
	case Put:
		return s.set(op.Sets, op.Value), Answer{}
	case Add:
		last := len(Keys) - 1
		n, err := strconv.Atoi(s.Values[last])
		if err != nil {
			panic(fmt.Sprintf("%q is no number", s.Values[last]))
		}
		sum := strconv.Itoa(n + 1)
		return s.set(Keys[last:], sum), Answer{Value: &sum}
	case Swap:
		for i, key := range Keys {
			if s.ChangedAt[i] > op.Expected && (slices.Contains(op.Checks, key) || slices.Contains(op.Sets, key)) {
				return s, Answer{Version: &s.Version}
			}
		}
		if len(op.Sets) > 0 { // checks alone make no version
			s = s.set(op.Sets, op.Value)
		}
		return s, Answer{Version: &s.Version, Won: true}
	}
	panic("unknown operation " + string(op.Kind))
}

// agrees tells whether a client that was told this was told the truth.
func (a *Answer) agrees(truth Answer) bool {
	switch {
	case a == nil:
		return true
	case a.Won != truth.Won:
		return false
	case a.Version != nil && truth.Version != nil && *a.Version != *truth.Version:
		return false
	case a.Value != nil && *a.Value != *truth.Value:
		return false
	}
	for key, value := range a.Values {
		if truth.Values[key] != value {
			return false
		}
	}
	return true
}

// Check searches for an order of the events, starting from a state, that agrees with all answers and with the times. An error
// says that there is none, or that none was found in time.
func Check(start State, events []Event, timeout time.Duration) error {
	model := porcupine.Model{
		Init: func() any { return start },
		Step: func(before, input, output any) (bool, any) {
			after, truth := before.(State).after(input.(Operation))
			return output.(*Answer).agrees(truth), after
		},
	}
	operations := make([]porcupine.Operation, 0, len(events))
	for _, e := range events {
		if e.Answer == nil {
			if e.Operation.Kind == Read {
				continue
			}
			e.Return = math.MaxInt64 // at the end nobody would notice, so this allows for its not having happened
		}
		operations = append(operations, porcupine.Operation{
			ClientId: e.Client, Input: e.Operation, Call: e.Call, Output: e.Answer, Return: e.Return,
		})
	}
	if result := porcupine.CheckOperationsTimeout(model, operations, timeout); result != porcupine.Ok {
		return fmt.Errorf("%d events: %v", len(events), result)
	}
	return nil
}
