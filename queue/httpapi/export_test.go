package httpapi

// RouteNames lists the routes of the router's tree.
func RouteNames(s *Server) map[string]bool {
	names := map[string]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		for method, r := range n.methods {
			names[method+" "+r.path] = true
		}
		for _, child := range n.literals {
			walk(child)
		}
		if n.id != nil {
			walk(n.id)
		}
	}
	walk(s.routes)
	return names
}
