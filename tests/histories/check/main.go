// Command check reads journals of clients from standard input and says whether the state that they used is linearizable. See
// ../journal.py for the lines. It prints how many events there were, and ends with status 1 if no order of them agrees with what
// the clients were told.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/theus-project/theus-go/internal/history"
)

// patience is for the search, which can take for ever where there is no order.
const patience = 2 * time.Minute

// line is one of a journal: the state at the start, the call of an operation, or its answer.
type line struct {
	Start     map[string]string  `json:"start"`
	Call      string             `json:"call"`
	Return    string             `json:"return"`
	At        int64              `json:"at"`
	Client    int                `json:"client"`
	Operation *history.Operation `json:"operation"`
	Answer    *history.Answer    `json:"answer"`
	Never     bool               `json:"never"` // it was refused, or its worker died with it: it did not happen
	Version   uint64             `json:"version"`
}

func main() {
	if err := run(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(1)
	}
}

func run(journals io.Reader) error {
	start, events, err := read(journals)
	if err != nil {
		return err
	}
	if err := history.Check(start, events, patience); err != nil {
		return err
	}
	fmt.Println(len(events))
	return nil
}

// read joins calls with their answers, in whatever order the lines come.
func read(journals io.Reader) (start history.State, events []history.Event, err error) {
	calls, returns := map[string]line{}, map[string]line{}
	lines := bufio.NewScanner(journals)
	lines.Buffer(nil, 1<<20)
	started := false
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return start, nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		switch {
		case l.Start != nil:
			started = true
			start.Version = l.Version
			for i, key := range history.Keys {
				start.Values[i], start.ChangedAt[i] = l.Start[key], l.Version
			}
		case l.Call != "":
			calls[l.Call] = l
		default:
			returns[l.Return] = l
		}
	}
	if err := lines.Err(); err != nil {
		return start, nil, err
	}
	if !started {
		return start, nil, fmt.Errorf("no line says what the state was at the start")
	}
	for id, call := range calls {
		answered, ended := returns[id]
		if answered.Never {
			continue
		}
		e := history.Event{Client: call.Client, Operation: *call.Operation, Call: call.At}
		if ended {
			e.Answer, e.Return = answered.Answer, answered.At
		}
		events = append(events, e)
	}
	return start, events, nil
}
