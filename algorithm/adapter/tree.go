package adapter

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// node is a span and what is below it.
type node struct {
	span       *queue.Span
	start, end float64
	children   []*node
	reward     *float64
}

// newTree builds the tree of an attempt's spans: children in the order of spans;
// parents that are named and not there are made up; several roots get one above
// them, in the order of spans with the made-up ones last, as they are first named.
// Spans that are above themselves belong to no root and are left out; if there
// are no others, that is an error, as is an empty list.
func newTree(spans []queue.Span) (*node, error) {
	if len(spans) == 0 {
		return nil, queue.Errorf(queue.Invalid, "an attempt without spans has no trace")
	}
	nodes := make(map[string]*node, len(spans))
	order := make([]*node, 0, len(spans))
	for i := range spans {
		s := &spans[i]
		if known := nodes[s.SpanID]; known != nil {
			known.span = s // an id that comes twice is one span, as it was last
			continue
		}
		n := &node{span: s}
		nodes[s.SpanID] = n
		order = append(order, n)
	}
	var roots, invented []*node
	for _, n := range order {
		n.start, n.end = times(n.span)
		if n.span.ParentID == nil {
			roots = append(roots, n)
			continue
		}
		parent := nodes[*n.span.ParentID]
		if parent == nil {
			parent = virtual(*n.span.ParentID, semconv.VirtualSpan, n)
			nodes[parent.span.SpanID] = parent
			invented = append(invented, parent)
		}
		parent.children = append(parent.children, n)
	}
	for _, n := range invented {
		n.start, n.end = math.Inf(1), math.Inf(-1)
		for _, child := range n.children {
			n.start, n.end = min(n.start, child.start), max(n.end, child.end)
		}
	}
	roots = append(roots, invented...)
	switch len(roots) {
	case 0:
		return nil, queue.Errorf(queue.Invalid, "the spans of rollout %s have no root: each is below itself", spans[0].RolloutID)
	case 1:
		return roots[0], nil
	}
	root := virtual("virtual-root", "virtual-root", roots[0])
	root.start, root.end, root.children = roots[0].start, roots[len(roots)-1].end, roots
	return root, nil
}

// virtual makes a node for a span that is not there, filed as like is.
func virtual(id, name string, like *node) *node {
	return &node{span: &queue.Span{
		RolloutID: like.span.RolloutID, AttemptID: like.span.AttemptID, SequenceID: like.span.SequenceID,
		TraceID: like.span.TraceID, SpanID: id, Name: name, Attributes: rawjson.EmptyObject,
	}}
}

// times are when a span began and ended; of one that does not say both, the one
// it says.
func times(s *queue.Span) (start, end float64) {
	switch {
	case s.StartTime != nil && s.EndTime != nil:
		return *s.StartTime, *s.EndTime
	case s.StartTime != nil:
		return *s.StartTime, *s.StartTime
	case s.EndTime != nil:
		return *s.EndTime, *s.EndTime
	}
	return 0, 0
}

// all lists a node and what is below it, each before its children.
func (n *node) all() []*node { return n.appendAll(nil) }

func (n *node) appendAll(list []*node) []*node {
	list = append(list, n)
	for _, child := range n.children {
		list = child.appendAll(list)
	}
	return list
}

// readRewards reads the reward of each node.
func (n *node) readRewards() error {
	for _, below := range n.all() {
		value, ok, err := semconv.SpanReward(below.span)
		if err != nil {
			return err
		}
		if ok {
			below.reward = &value
		}
	}
	return nil
}

// repair puts calls that float below the root, because another tracing system
// made them, under the span that encloses them most tightly in time. It works on
// the children of the first node that has not exactly one, and leaves one there.
func (n *node) repair() {
	for len(n.children) == 1 {
		n = n.children[0]
	}
	if len(n.children) == 0 {
		return
	}
	enclosed := newEnclosure(n.all()[1:])
	for _, child := range slices.Clone(n.children) {
		if len(n.children) == 1 {
			return
		}
		if !enclosed.possible(child) {
			continue
		}
		if parent := n.tightest(child); parent != nil {
			at := slices.Index(n.children, child)
			n.children = slices.Delete(n.children, at, at+1)
			parent.children = append(parent.children, child)
		}
	}
}

// tightest finds the node below n that encloses child with the least time to
// spare, but some; what is below child is no candidate.
func (n *node) tightest(child *node) *node {
	var best *node
	least := math.Inf(1)
	var look func(*node)
	look = func(at *node) {
		for _, c := range at.children {
			if c == child {
				continue
			}
			if c.start <= child.start && c.end >= child.end {
				if spare := c.end - child.end + child.start - c.start; spare > 0 && spare < least {
					best, least = c, spare
				}
			}
			look(c)
		}
	}
	look(n)
	return best
}

// enclosure tells cheaply that nothing encloses a node, so that a long flat trace
// is not searched once for each of its spans.
type enclosure struct {
	starts []float64 // ascending
	ends   []float64 // the latest end of the nodes up to each
}

func newEnclosure(nodes []*node) enclosure {
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.start, b.start) })
	var e enclosure
	latest := math.Inf(-1)
	for _, n := range nodes {
		latest = max(latest, n.end)
		e.starts, e.ends = append(e.starts, n.start), append(e.ends, latest)
	}
	return e
}

// possible reports whether another node encloses one with time to spare: it begins
// earlier and ends no earlier, or begins no later and ends later.
func (e enclosure) possible(n *node) bool {
	earlier, _ := slices.BinarySearch(e.starts, n.start)
	after := sort.Search(len(e.starts), func(i int) bool { return e.starts[i] > n.start })
	return earlier > 0 && e.ends[earlier-1] >= n.end || after > 0 && e.ends[after-1] > n.end
}
