package main

import (
	"math"
	"testing"
	"time"
)

func TestMillisecondsNeverTurnOver(t *testing.T) {
	if d := milliseconds(math.MinInt64); d >= 0 {
		t.Errorf("the most negative time, for ever, became %v", d)
	}
	if d := milliseconds(math.MaxInt64); d < 200*365*24*time.Hour {
		t.Errorf("the longest time became %v", d)
	}
	if d := milliseconds(1500); d != 1500*time.Millisecond {
		t.Errorf("1500 became %v", d)
	}
}
