package adapter

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/semconv"
)

// RewardMatch says which call a reward goes to when nothing links it to one.
type RewardMatch int

const (
	// FirstOccurrence gives a reward to the last call that had ended when the
	// reward was told and that has none yet.
	FirstOccurrence RewardMatch = iota
	// FirstSibling is FirstOccurrence among the children of one span.
	FirstSibling
	// Sequence gives a reward to the call with the highest number below its own
	// that has none yet. Times do not count, so clocks may differ.
	Sequence
)

// TracerTriplets makes triplets from the spans of a traced agent, in the order in
// which the calls are found in the tree of spans. The zero value takes every call
// that OpenAI's client makes.
type TracerTriplets struct {
	// LLMCall matches the names of spans that are LLM calls;
	// openai\.chat\.completion when nil.
	LLMCall *regexp.Regexp
	// Agent matches the names of the agents whose calls count; nil is any, and
	// none.
	Agent *regexp.Regexp
	// KeepHierarchy takes the tree as it was sent. Otherwise calls that float
	// below the root are put under the spans that enclose them in time.
	KeepHierarchy bool
	// RewardCalls also takes the calls that were made to compute a reward.
	RewardCalls bool
	// Match is for rewards without links.
	Match RewardMatch
	// FollowLinks gives a reward with links to the last of the calls they point
	// at that has none yet, and to no other. Otherwise links do not count.
	FollowLinks bool
	// SkipEmpty leaves out calls without token ids of both the prompt and the
	// response.
	SkipEmpty bool
}

var openAICall = regexp.MustCompile(regexp.QuoteMeta(semconv.ChatSpan))

// Adapt implements Adapter. No spans at all are an error, as are spans that have
// no root, malformed rewards and, in calls, malformed attributes.
func (a TracerTriplets) Adapt(spans []queue.Span) ([]Triplet, error) {
	root, err := newTree(spans)
	if err != nil {
		return nil, err
	}
	if err := root.readRewards(); err != nil {
		return nil, err
	}
	if !a.KeepHierarchy {
		root.repair()
	}
	calls, triplets, err := a.triplets(root)
	if err != nil {
		return nil, err
	}
	if err := a.matchRewards(root, calls); err != nil {
		return nil, err
	}
	for i, c := range calls {
		triplets[i].Reward = c.reward
	}
	return triplets, nil
}

func (a TracerTriplets) triplets(root *node) (calls []*call, triplets []Triplet, err error) {
	s := search{name: cmp.Or(a.LLMCall, openAICall), agent: a.Agent, rewardsToo: a.RewardCalls, responses: map[string]bool{}}
	var scope *string
	if a.Agent == nil {
		anyAgent := "*"
		scope = &anyAgent
	}
	s.visit(root, scope, false, false)
	for _, c := range s.calls {
		t, err := tracedCall(c.span, c.agent)
		if err != nil {
			return nil, nil, err
		}
		if a.SkipEmpty && (len(t.Prompt.TokenIDs) == 0 || len(t.Response.TokenIDs) == 0) {
			continue
		}
		calls, triplets = append(calls, c), append(triplets, t)
	}
	return calls, triplets, nil
}

func (a TracerTriplets) matchRewards(root *node, calls []*call) error {
	byNode := make(map[*node]*call, len(calls))
	for _, c := range calls {
		byNode[c.node] = c
	}
	nodes := root.all()
	linked := map[*node]bool{}
	if a.FollowLinks {
		var err error
		if linked, err = matchLinks(nodes, calls); err != nil {
			return err
		}
	}
	m := matching{calls: byNode, linked: linked}
	switch a.Match {
	case FirstSibling:
		for _, n := range nodes {
			m.inOrder(n.children)
		}
	case Sequence:
		slices.SortStableFunc(nodes, func(a, b *node) int { return cmp.Compare(a.span.SequenceID, b.span.SequenceID) })
		m.bySequence(nodes)
	default:
		slices.SortStableFunc(nodes, func(a, b *node) int { return cmp.Compare(a.start, b.start) })
		m.inOrder(nodes)
	}
	return nil
}

// matchLinks gives rewards that have links to calls, and tells which have.
func matchLinks(nodes []*node, calls []*call) (linked map[*node]bool, err error) {
	linked = map[*node]bool{}
	spans := make([]*queue.Span, len(calls))
	for i, c := range calls {
		spans[i] = c.span
	}
	targets := linkTargets{spans: spans}
	for _, n := range nodes {
		if n.reward == nil {
			continue
		}
		links, err := semconv.SpanLinks(n.span)
		if err != nil {
			return nil, err
		}
		if len(links) == 0 {
			continue
		}
		linked[n] = true
		var last *call
		for _, i := range targets.of(links) {
			if c := calls[i]; c.reward == nil && (last == nil || c.start >= last.start) {
				last = c
			}
		}
		if last != nil {
			last.reward = n.reward
		}
	}
	return linked, nil
}

// matching gives rewards to calls by their places.
type matching struct {
	calls  map[*node]*call
	linked map[*node]bool // rewards that are not to be given by place
}

func (m *matching) inOrder(nodes []*node) {
	var before []*call
	for _, n := range nodes {
		if c := m.calls[n]; c != nil {
			before = append(before, c)
		}
		if n.reward == nil || m.linked[n] {
			continue
		}
		for len(before) > 0 && before[len(before)-1].reward != nil {
			before = before[:len(before)-1]
		}
		for _, c := range slices.Backward(before) {
			if c.end <= n.start && c.reward == nil {
				c.reward = n.reward
				break
			}
		}
	}
}

// bySequence takes nodes in the order of their numbers.
func (m *matching) bySequence(nodes []*node) {
	var open, equal []*call // equal are those with the number that is reached
	for i, n := range nodes {
		if i > 0 && n.span.SequenceID != nodes[i-1].span.SequenceID {
			open, equal = append(open, equal...), equal[:0]
		}
		if c := m.calls[n]; c != nil {
			equal = append(equal, c)
		}
		if n.reward == nil || m.linked[n] {
			continue
		}
		for len(open) > 0 {
			c := open[len(open)-1]
			open = open[:len(open)-1]
			if c.reward == nil {
				c.reward = n.reward
				break
			}
		}
	}
}
