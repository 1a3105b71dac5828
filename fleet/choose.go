package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"updater/release"
)

// Device is the input of the choice besides the channel.
type Device struct {
	Identifier string
	Floor      int64
	Running    Held              // the zero value is unknown
	Next       Held              // of the slot that boots next, if that is another one
	Failed     map[string]int64  // identities of releases that failed here, with the attempt
	Refused    map[string]string // identities of releases that their own documents exclude, with the reason
	Now        time.Time         // of the trusted clock
}

// Held is the release of a slot.
type Held struct {
	Identity      string // "" is unknown
	Version       string
	RollbackIndex int64
}

// Why is the reason for which a release is passed over.
type Why string

// The reasons.
const (
	WhyWithdrawn Why = "withdrawn"
	WhyFloor     Why = "floor"      // below the floor of the device
	WhyFailed    Why = "failed"     // here, at this attempt
	WhyRefused   Why = "refused"    // by its own document, such as for other hardware
	WhyFromIndex Why = "from-index" // another release has to be installed first
	WhyTurn      Why = "turn"       // not the device's turn yet
)

// Skipped is a newer release that is not for the device now.
type Skipped struct {
	Version  string    `json:"version"`
	Identity string    `json:"identity"`
	Why      Why       `json:"why"`
	From     time.Time `json:"from,omitzero"` // WhyTurn: when the turn comes; zero while the rollout is held
	Text     string    `json:"text"`
}

// Choice is the offer of a channel for a device.
type Choice struct {
	Entry   *release.Entry // nil: nothing
	Reason  string         // one sentence without a period: the choice, or why there is none
	Waiting bool           // nothing, because the newest release is installed and boots next
	Skipped []Skipped      // newer releases that are not for the device now, the newest first
}

// Choose picks the release of a channel that a device should install: the highest rollback index, then the later entry, among those that
// are newer than the running and the next release, not withdrawn, not below the floor, not failed here at this attempt, reachable from the
// running index, and in turn. The time of a rollout is the later of d.Now and the time at which the channel was created. It is a pure function.
func Choose(c release.ChannelContents, d Device) Choice {
	if c.Created.After(d.Now) {
		d.Now = c.Created
	}
	var choice Choice
	for _, i := range newest(c.Releases) {
		e := c.Releases[i]
		if !after(c.Releases, i, d.Running) || !after(c.Releases, i, d.Next) {
			continue
		}
		if s, skip := d.skip(e); skip {
			choice.Skipped = append(choice.Skipped, s)
			continue
		}
		choice.Entry, choice.Reason = &e, fmt.Sprintf("version %s is for this device", e.Version)
		return choice
	}
	choice.Reason, choice.Waiting = d.nothing(c, choice.Skipped)
	return choice
}

// newest lists the indices of the entries, the newest first: by rollback index, then the later entry.
func newest(entries []release.Entry) []int {
	order := make([]int, len(entries))
	for i := range order {
		order[i] = len(entries) - 1 - i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(entries[b].RollbackIndex, entries[a].RollbackIndex) })
	return order
}

// after reports whether entry i is newer than a held release. Of the same index the later entry is newer. Where the channel does not list the
// held release, the time in the document of entry i decides, which the caller compares.
func after(entries []release.Entry, i int, h Held) bool {
	e := entries[i]
	switch {
	case h == Held{}:
		return true
	case e.RollbackIndex != h.RollbackIndex:
		return e.RollbackIndex > h.RollbackIndex
	case h.Identity == "":
		return e.Version != h.Version
	}
	return i > slices.IndexFunc(entries, func(o release.Entry) bool { return o.Identity == h.Identity })
}

// skip returns why a newer entry is not for the device now.
func (d Device) skip(e release.Entry) (s Skipped, skip bool) {
	attempt, failed := d.Failed[e.Identity]
	from, inTurn := time.Time{}, true
	if e.Rollout != nil {
		from, inTurn = Turn(e.Rollout, Place(d.Identifier, e.Identity))
	}
	s = Skipped{Version: e.Version, Identity: e.Identity}
	say := func(why Why, format string, a ...any) (Skipped, bool) {
		s.Why, s.Text = why, fmt.Sprintf("version %s ", e.Version)+fmt.Sprintf(format, a...)
		return s, true
	}
	switch {
	case e.Withdrawn:
		return say(WhyWithdrawn, "was withdrawn")
	case e.RollbackIndex < d.Floor:
		return say(WhyFloor, "has the rollback index %d; this device takes none below %d", e.RollbackIndex, d.Floor)
	case failed && attempt >= e.Attempt:
		return say(WhyFailed, "failed here at attempt %d", attempt)
	case d.Refused[e.Identity] != "":
		return say(WhyRefused, "cannot be installed: %s", d.Refused[e.Identity])
	case e.FromIndex > d.Running.RollbackIndex:
		return say(WhyFromIndex, "needs a release with rollback index %d or more first; this device runs %d", e.FromIndex, d.Running.RollbackIndex)
	case !inTurn:
		return say(WhyTurn, "is held at %d %% of the devices, without this one", e.Rollout.Percent)
	case from.After(d.Now):
		s.From = from.UTC()
		return say(WhyTurn, "is not for this device before %s", s.From.Format(time.RFC3339))
	}
	return s, false
}

// nothing returns why nothing was chosen, and whether the newest release only waits for a restart.
func (d Device) nothing(c release.ChannelContents, skipped []Skipped) (reason string, waiting bool) {
	next := slices.IndexFunc(c.Releases, func(e release.Entry) bool { return d.Next.Identity != "" && e.Identity == d.Next.Identity })
	switch {
	case next >= 0 && c.Releases[next].Withdrawn:
		return fmt.Sprintf("version %s boots next and was withdrawn since; activate the running slot to stay there", d.Next.Version), false
	case d.Next != Held{}:
		reason, waiting = fmt.Sprintf("version %s is installed and boots next", d.Next.Version), true
	case len(skipped) > 0:
	case len(c.Releases) == 0:
		return fmt.Sprintf("channel %s has no release yet", c.Channel), false
	default:
		return fmt.Sprintf("channel %s has nothing newer than the running release", c.Channel), false
	}
	if len(skipped) == 0 {
		return reason, waiting
	}
	if reason != "" {
		reason += "; "
	}
	return reason + skipped[0].Text, waiting
}
