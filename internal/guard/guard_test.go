package guard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCatchReturnsThePanicWithItsPlaceAndStack(t *testing.T) {
	p := Catch("the test", func() { panic("boom") })
	require.NotNil(t, p)
	require.Equal(t, "internal error in the test: boom", p.Error())
	require.Contains(t, p.Stack, "guard_test.go")
	require.Nil(t, Catch("the test", func() {}))
}

func TestGoroutinesAndTimersReportInsteadOfEndingTheProcess(t *testing.T) {
	caught := make(chan *Panic, 2)
	report := func(p *Panic) { caught <- p }
	Go("a goroutine", report, func() { panic(1) })
	AfterFunc(time.Millisecond, "a timer", report, func() { panic(2) })
	seen := map[string]bool{(<-caught).Where: true, (<-caught).Where: true}
	require.Equal(t, map[string]bool{"a goroutine": true, "a timer": true}, seen)
}
