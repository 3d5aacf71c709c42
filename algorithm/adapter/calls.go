package adapter

import (
	"regexp"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

// weaveResponseID is where Weave's tracer keeps the id of a response.
const weaveResponseID = semconv.OperationOutput + ".id"

// call is an LLM call in a tree.
type call struct {
	*node
	agent  string // "*" for any
	reward *float64
}

// search finds LLM calls.
type search struct {
	name, agent *regexp.Regexp // agent is nil for any
	rewardsToo  bool           // also below spans of rewards
	responses   map[string]bool
	calls       []*call
}

// visit looks at a node and what is below it. Scope is the agent's name, nil where
// calls do not count; inCall tells that the node is below a call.
func (s *search) visit(n *node, scope *string, inReward, inCall bool) {
	if scope != nil && !inReward && s.name.MatchString(n.span.Name) && s.fresh(n.span, inCall) {
		s.calls = append(s.calls, &call{node: n, agent: *scope})
		inCall = true
	}
	if name, ok := agentName(n.span); ok {
		scope = nil
		if s.agent == nil || s.agent.MatchString(name) {
			scope = &name
		}
	}
	inReward = inReward || !s.rewardsToo && n.isReward()
	for _, child := range n.children {
		s.visit(child, scope, inReward, inCall)
	}
}

// fresh reports whether a span is not one more record of a call that was found.
func (s *search) fresh(span *queue.Span, inCall bool) bool {
	id := ResponseID(span)
	if id == nil {
		return !inCall
	}
	if s.responses[*id] {
		return false
	}
	s.responses[*id] = true
	return true
}

// ResponseID is the id that the model's server gave the answer of an LLM call; nil
// when the span of the call does not tell.
func ResponseID(s *queue.Span) *string { return firstText(s, semconv.GenAIResponseID, weaveResponseID) }

// firstText is the first of the attributes keys that is a text.
func firstText(s *queue.Span, keys ...string) *string {
	for _, key := range keys {
		if text := s.Attribute(key).TextOrNil(); text != nil {
			return text
		}
	}
	return nil
}

// isReward reports whether a span tells a reward or computes one.
func (n *node) isReward() bool {
	return n.reward != nil ||
		n.span.Name == semconv.OperationSpan && n.span.Attribute(semconv.OperationName).Text() == semconv.RewardOperation
}

// agentName is the agent whose work a span is, as the frameworks of agents say
// it.
func agentName(s *queue.Span) (name string, ok bool) {
	var found [len(agentKeys)]rawjson.Value
	for key, val := range s.Attributes.Members() {
		for i := range agentKeys {
			if string(key) == agentKeys[i].key {
				found[i] = val
			}
		}
	}
	for i, k := range agentKeys {
		if found[i].Kind() != rawjson.KindString {
			continue
		}
		if k.kindKey != "" && s.Attribute(k.kindKey).Text() != "agent" {
			continue
		}
		if k.spanPrefix != "" && !strings.HasPrefix(s.Name, k.spanPrefix) {
			continue
		}
		return found[i].Text(), true
	}
	return "", false
}

// agentKeys are the attributes with an agent's name, in order of precedence. Some
// count only where another attribute is "agent", or where the span's name has a
// prefix.
var agentKeys = [...]struct{ key, kindKey, spanPrefix string }{
	{key: "agent.name"}, // OpenAI's agents
	{key: "operation.name", kindKey: "agentops.span.kind"},   // AgentOps
	{key: "recipient_agent_type"},                            // AutoGen
	{key: "langchain.chain.type"},                            // LangGraph
	{key: "executor.id"},                                     // agent-framework
	{key: semconv.OperationInput + ".name", kindKey: "type"}, // Weave
	{key: "lc_name", spanPrefix: "langchain.Chain."},         // Weave and LangChain
}
