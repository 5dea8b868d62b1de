package worker

import (
	"slices"
	"time"

	"golang.org/x/time/rate"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

const (
	// fanPage is how many devices a page holds at most: one commit, which other senders wait for.
	fanPage = 500
	// fanPages is how many pages a second a paced app's devices are spread over at least, so that their wakes come evenly.
	fanPages = 4
	// A page that failed is tried again after fanRetry, doubling up to fanRetryMost.
	fanRetry     = time.Second
	fanRetryMost = time.Minute
)

// turns is whose page is stored next: apps take turns, and the sends of an app among themselves, so that a small one is not kept waiting by
// a huge one. What wakes nobody is stored as fast as it goes; what does is paced, all of an app together. It is pure: time
// comes in.
type turns struct {
	apps []*fanApp // the one whose turn is next comes first
	full bool      // the last list may not have held all
}

// fanApp is what an app has to fan out. It stays for as long as its pace has to be remembered.
type fanApp struct {
	id     ident.App
	jobs   []*fanJob // the one whose turn is next comes first
	bucket *rate.Limiter
	page   int // devices at a time, of what wakes
}

// fanJob is a send on its way.
type fanJob struct {
	messages.FanJob
	since  time.Time // from then on it has waited for its next page
	begun  bool      // a page was stored here
	failed int       // times in a row
	next   time.Time // not before: it has failed, or came to nothing
}

// turn is the page to be stored next.
type turn struct {
	app   *fanApp
	job   *fanJob
	limit int
}

// time is that of the page: its send's, if the clock was put back since that had come.
func (t turn) time(now time.Time) time.Time { return later(now, t.job.Due) }

// listed takes in what is due. What was known keeps its turn. What is not listed any more is forgotten, unless it has begun: the clock may
// have been put back, and that holds up nothing halfway.
func (t *turns) listed(list []messages.FanJob, full bool, now time.Time) {
	t.full = full
	due := make(map[ident.Message]messages.FanJob, len(list))
	for _, j := range list {
		due[j.Message] = j
	}
	for _, a := range t.apps {
		a.jobs = slices.DeleteFunc(a.jobs, func(j *fanJob) bool {
			still, ok := due[j.Message]
			if ok {
				j.FanJob = still
				delete(due, j.Message)
			}
			return !ok && !j.begun
		})
	}
	for _, j := range list {
		if _, ok := due[j.Message]; ok {
			a := t.of(j.App)
			a.jobs = append(a.jobs, &fanJob{FanJob: j, since: j.Due})
		}
	}
	for _, a := range t.apps {
		if len(a.jobs) > 0 {
			a.pace(a.jobs[len(a.jobs)-1].Rate, now)
		}
	}
	t.apps = slices.DeleteFunc(t.apps, func(a *fanApp) bool { return len(a.jobs) == 0 && a.rested(now) })
}

// of returns the app, which is last in turn if it is new.
func (t *turns) of(id ident.App) *fanApp {
	for _, a := range t.apps {
		if a.id == id {
			return a
		}
	}
	a := &fanApp{id: id}
	t.apps = append(t.apps, a)
	return a
}

// pace sets how many devices a second the app may reach. What may be caught up is a quarter of a second's worth, or a page.
func (a *fanApp) pace(aSecond int, now time.Time) {
	if aSecond <= 0 {
		aSecond = tokens.DefaultBroadcastRate
	}
	a.page = min(max(aSecond/fanPages, 1), fanPage)
	burst := max(2*a.page, aSecond/fanPages)
	if a.bucket == nil {
		a.bucket = rate.NewLimiter(rate.Limit(aSecond), burst)
		a.bucket.AllowN(now, burst-a.page) // nothing is to be caught up yet
		return
	}
	if a.bucket.Limit() != rate.Limit(aSecond) {
		a.bucket.SetLimitAt(now, rate.Limit(aSecond))
		a.bucket.SetBurstAt(now, burst)
	}
}

// rested reports whether nothing has to be remembered of the app's pace.
func (a *fanApp) rested(now time.Time) bool {
	return a.bucket == nil || a.bucket.TokensAt(now) >= float64(a.bucket.Burst())
}

// pick returns the page whose turn it is, or none and when to ask again.
func (t *turns) pick(now time.Time) (next turn, wait time.Duration) {
	wait = fanTick
	for i, a := range t.apps {
		for k, j := range a.jobs {
			rest := a.rest(j, now)
			if rest > 0 {
				wait = min(wait, rest)
				continue
			}
			t.apps = append(slices.Delete(t.apps, i, i+1), a)
			a.jobs = append(slices.Delete(a.jobs, k, k+1), j)
			return turn{app: a, job: j, limit: a.limit(j)}, 0
		}
	}
	return turn{}, wait
}

// rest is how long the job has still to wait for its page.
func (a *fanApp) rest(j *fanJob, now time.Time) time.Duration {
	rest := j.next.Sub(now)
	if missing := float64(a.page) - a.bucket.TokensAt(now); j.Wakes && missing > 0 {
		rest = max(rest, time.Duration(missing/float64(a.bucket.Limit())*float64(time.Second))+time.Microsecond)
	}
	return rest
}

func (a *fanApp) limit(j *fanJob) int {
	if j.Wakes {
		return a.page
	}
	return fanPage
}

// stored notes a page that was begun at a time.
func (t *turns) stored(of turn, page messages.FanPage, at time.Time) {
	if of.job.Wakes {
		// A page may hold more than was asked for: a user's devices are not parted.
		for left := page.Reached; left > 0; left -= of.app.bucket.Burst() {
			of.app.bucket.ReserveN(at, min(left, of.app.bucket.Burst()))
		}
	}
	of.job.failed, of.job.next, of.job.since = 0, time.Time{}, at
	of.job.begun = of.job.begun || page.Reached > 0
	if page.Reached == 0 { // taken back, or nobody here is meant, or it is stored elsewhere
		of.job.next = at.Add(fanGap)
	}
	if page.Done {
		of.app.jobs = slices.DeleteFunc(of.app.jobs, func(j *fanJob) bool { return j == of.job })
	}
}

// fail notes that a page was not stored and returns when it is tried again. Other sends go on.
func (j *fanJob) fail(now time.Time) time.Duration {
	wait := min(fanRetry<<min(j.failed, 10), fanRetryMost)
	j.failed++
	j.next = now.Add(wait)
	return wait
}

// state counts the sends under way and says how long the one that waits longest has waited for its next page.
func (t *turns) state(now time.Time) (jobs int, lag time.Duration) {
	for _, a := range t.apps {
		jobs += len(a.jobs)
		for _, j := range a.jobs {
			lag = max(lag, now.Sub(j.since))
		}
	}
	return jobs, lag
}
