package pool

import "fmt"

// What workers log waits here until the host fetches it. A host that fetches late, or never, is not to be
// filled up by tasks that log in a loop.
const (
	maxLogs     = 10_000
	maxLogBytes = 16 << 20
)

// LogRecord is one message that ctx.log sent.
type LogRecord struct {
	Task    uint64 `json:"task"`
	Worker  int    `json:"worker"`
	Level   uint32 `json:"level"`
	Logger  string `json:"logger"`
	Message string `json:"message"`
}

// heldLogs are the records that wait. Guarded by Pool.mu.
type heldLogs struct {
	records []LogRecord
	bytes   int // of their texts
	dropped int // that came when there were too many
}

// add takes one more, or counts it.
func (h *heldLogs) add(r LogRecord) {
	size := len(r.Logger) + len(r.Message)
	if len(h.records) >= maxLogs || h.bytes+size > maxLogBytes {
		h.dropped++
		return
	}
	h.records = append(h.records, r)
	h.bytes += size
}

// take empties it. What was dropped is told last.
func (h *heldLogs) take() []LogRecord {
	records := h.records
	if h.dropped > 0 {
		records = append(records, LogRecord{Worker: -1, Level: 30, Logger: "theus", Message: fmt.Sprintf(
			"%d log records were dropped: they came faster than this process took them", h.dropped)})
	}
	*h = heldLogs{}
	return records
}

// log keeps a record for the host to fetch, and announces it. mu is held.
func (p *Pool) log(record LogRecord) {
	p.logs.add(record)
	if p.logQueue != nil {
		p.logQueue.push(Event{Log: true})
	}
}

// AnnounceLogs makes q the queue that hears of log records.
func (p *Pool) AnnounceLogs(q *Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logQueue = q
	if len(p.logs.records) > 0 {
		q.push(Event{Log: true})
	}
}

// QuietLogs undoes AnnounceLogs, unless another queue has taken over since.
func (p *Pool) QuietLogs(q *Queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logQueue == q {
		p.logQueue = nil
	}
}

// Logs takes the records that have come.
func (p *Pool) Logs() []LogRecord {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.take()
}
