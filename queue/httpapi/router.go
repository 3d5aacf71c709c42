package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// other is the route label of what no route serves.
const other = "other"

// health is the one API path that needs no token.
const health = "/v1/agl/health"

// route is one line of the route table.
type route struct {
	method  string
	path    string // with {name} for segments that vary
	summary string
	body    string // schema of the request body, "" for none
	answer  string // schema of the answer
	status  int    // of success
	list    bool   // takes the parameters of lists in the query
	serve   func(*call) error
}

// node is one place in the tree of paths. A literal segment wins over an id,
// for each method by itself: POST rollouts/search is the search, GET
// rollouts/search is the rollout of that id.
type node struct {
	literals map[string]*node
	id       *node
	methods  map[string]*route
}

func newRouter(table []route) *node {
	root := &node{}
	for i := range table {
		n := root
		for segment := range strings.SplitSeq(strings.TrimPrefix(table[i].path, "/"), "/") {
			n = n.child(segment)
		}
		if n.methods == nil {
			n.methods = make(map[string]*route)
		}
		n.methods[table[i].method] = &table[i]
	}
	return root
}

func (n *node) child(segment string) *node {
	if strings.HasPrefix(segment, "{") {
		if n.id == nil {
			n.id = &node{}
		}
		return n.id
	}
	if n.literals == nil {
		n.literals = make(map[string]*node)
	}
	if n.literals[segment] == nil {
		n.literals[segment] = &node{}
	}
	return n.literals[segment]
}

// match is what a path leads to.
type match struct{ methods map[string]*route }

// find walks an escaped path and puts the ids in it into c. When a literal's
// place and an id's both serve the path, the literal's methods come first.
func (n *node) find(path string, c *call) match {
	var m match
	n.walk(strings.TrimPrefix(path, "/"), c, 0, &m)
	return m
}

func (n *node) walk(rest string, c *call, ids int, m *match) {
	segment, rest, more := strings.Cut(rest, "/")
	if segment == "" {
		return
	}
	step := func(next *node, ids int) {
		switch {
		case next == nil:
		case more:
			next.walk(rest, c, ids, m)
		case m.methods == nil:
			m.methods = next.methods
		default:
			both := maps.Clone(next.methods)
			maps.Copy(both, m.methods)
			m.methods = both
		}
	}
	step(n.literals[segment], ids)
	if n.id != nil && ids < len(c.ids) && !(m.methods[c.r.Method] != nil) {
		id, err := url.PathUnescape(segment)
		if err == nil {
			c.ids[ids] = id
			step(n.id, ids+1)
		}
	}
}

// allow lists the methods that the path takes, for the Allow header. GET of
// every other path belongs to the dashboard.
func (m match) allow() string {
	if len(m.methods) == 0 {
		return http.MethodGet
	}
	return strings.Join(slices.Sorted(maps.Keys(m.methods)), ", ")
}
