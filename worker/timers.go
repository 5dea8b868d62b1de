package worker

import (
	"container/heap"
	"time"
)

// timer is a place in the hub's one heap of due times. Owned by the hub.
type timer struct {
	at    time.Time
	index int // place in the heap plus one; 0 is outside
	fire  func()
}

type timers []*timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i+1, j+1
}

// Push is for container/heap.
func (t *timers) Push(x any) {
	item := x.(*timer)
	item.index = len(*t) + 1
	*t = append(*t, item)
}

// Pop is for container/heap.
func (t *timers) Pop() any {
	last := len(*t) - 1
	item := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	item.index = 0
	return item
}

// set schedules item at the time, moving it if it was scheduled.
func (t *timers) set(item *timer, at time.Time) {
	item.at = at
	if item.index > 0 {
		heap.Fix(t, item.index-1)
		return
	}
	heap.Push(t, item)
}

// clear takes item out, if it was in.
func (t *timers) clear(item *timer) {
	if item.index > 0 {
		heap.Remove(t, item.index-1)
	}
}

// pop takes out the first item due at now; nil if there is none.
func (t *timers) pop(now time.Time) *timer {
	if len(*t) == 0 || (*t)[0].at.After(now) {
		return nil
	}
	return heap.Pop(t).(*timer)
}
