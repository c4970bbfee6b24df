package pool

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLogsThatNobodyFetchesAreBounded(t *testing.T) {
	mebibyte := strings.Repeat("x", 1<<20-1) // and a letter for the logger's name
	for name, c := range map[string]struct {
		message   string
		sent, got int
		told      string
	}{
		"as many as may be":  {"x", maxLogs, maxLogs, ""},
		"too many":           {"x", maxLogs + 5, maxLogs, "5 log records were dropped"},
		"as large as may be": {mebibyte, 16, 16, ""},
		"too large":          {mebibyte, 20, 16, "4 log records were dropped"},
	} {
		t.Run(name, func(t *testing.T) {
			var held heldLogs
			for range c.sent {
				held.add(LogRecord{Logger: "a", Message: c.message})
			}
			records := held.take()
			if c.told != "" {
				last := len(records) - 1
				require.Contains(t, records[last].Message, c.told)
				records = records[:last]
			}
			require.Len(t, records, c.got)
			require.Empty(t, held.take())
		})
	}
}
