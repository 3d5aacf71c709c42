package reflection

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// The names of what a reflection keeps among resources.
const (
	HeuristicsName = "heuristics" // a prompt template for agents, a line a heuristic
	RecordName     = "reflection" // a prompt template that is the JSON of a Record
)

// The kinds of sets of resources.
const (
	KindProposal = "proposal" // to be added to the heuristics
	KindVersion  = "version"  // all heuristics at a time
)

// Heuristic is one piece of advice.
type Heuristic struct {
	// Key holds the id of the rollout that it comes from, so that no two collide:
	// heuristic_from_rollout_ID_N.
	Key       string `json:"key"`
	Text      string `json:"text"`
	RolloutID string `json:"rollout_id"`
	Reason    string `json:"reason,omitempty"`
}

// Record says where heuristics come from.
type Record struct {
	Kind       string      `json:"kind"`    // KindProposal or KindVersion
	Target     string      `json:"target"`  // the id of the resources that agents get
	Version    int64       `json:"version"` // of a KindVersion, from 1
	Heuristics []Heuristic `json:"heuristics"`
	// Score is the mean reward on the validation tasks, where they were scored.
	Score *float64 `json:"score,omitempty"`
}

// resources puts a record in place of that of base, and heuristics made of it, unless
// they are only proposed: what agents get then stays as it is.
func (r Record) resources(base rawjson.Value) (rawjson.Value, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding heuristics: %w", err)
	}
	own := map[string]string{RecordName: string(text)}
	if r.Kind != KindProposal {
		lines := make([]string, len(r.Heuristics))
		for i, h := range r.Heuristics {
			lines[i] = "- " + plain(h.Text)
		}
		own[HeuristicsName] = strings.Join(lines, "\n")
	}
	var dst []byte
	for key, val := range base.Members() {
		if _, ok := own[rawjson.Unescape(key)]; !ok {
			dst = rawjson.AppendMember(dst, key, val)
		}
	}
	for _, name := range []string{HeuristicsName, RecordName} {
		if _, ok := own[name]; !ok {
			continue
		}
		v, err := rawjson.Marshal(queue.PromptTemplate{ResourceType: "prompt_template", Template: own[name], Engine: "jinja"})
		if err != nil {
			return nil, err
		}
		dst = rawjson.AppendMember(dst, []byte(name), v)
	}
	return append(dst, '}'), nil
}

// plain is a heuristic as one line that no engine takes for a template.
func plain(text string) string {
	return strings.NewReplacer("{{", "{ {", "{%", "{ %", "{#", "{ #").Replace(strings.Join(strings.Fields(text), " "))
}

// ReadRecord reads the record among resources. It is nil when there is none, and
// Invalid when it is no record.
func ReadRecord(resources rawjson.Value) (*Record, error) {
	text := resources.Get(RecordName).Get("template").Text()
	if text == "" {
		return nil, nil
	}
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "the resource "+RecordName+" is no record of heuristics")
	}
	return &r, nil
}

// shelf is the part of a store that has resources.
type shelf interface {
	Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error)
	UpdateResources(ctx context.Context, id string, resources rawjson.Value) (queue.ResourcesUpdate, error)
}

// DefaultMaxHeuristics bounds how many heuristics are kept, for they take room in
// prompts: the oldest go.
const DefaultMaxHeuristics = 50

// Promote makes a set of resources count: a proposal is added to the heuristics it is
// meant for, a version takes their place, and a set without a record is copied over
// those of target whole. An empty target is that of the record. It returns the id and
// the record of what counts now; the record is nil for a set without one. To promote
// what counts already changes nothing. Two promotions to one target must not run at
// the same time.
func Promote(ctx context.Context, s shelf, id, target string, most int) (string, *Record, error) {
	set, err := s.Resources(ctx, id)
	if err != nil {
		return "", nil, err
	}
	if set == nil {
		return "", nil, queue.Errorf(queue.NotFound, "resources %s not found", id)
	}
	record, err := ReadRecord(set.Resources)
	if err != nil {
		return "", nil, err
	}
	if record == nil {
		if target == "" {
			return "", nil, queue.Errorf(queue.Invalid, "resources %s do not say what they are for; say which resources they are to replace", id)
		}
		_, err := s.UpdateResources(ctx, target, set.Resources)
		return target, nil, err
	}
	if target == "" {
		target = record.Target
	}
	next, changed, err := promoted(ctx, s, *record, target, most)
	if err != nil || !changed {
		return target, &next, err
	}
	return target, &next, publish(ctx, s, next)
}

// promoted is what the heuristics of target become with a record, and whether that is
// a change.
func promoted(ctx context.Context, s shelf, r Record, target string, most int) (next Record, changed bool, err error) {
	current, _, err := current(ctx, s, target)
	if err != nil {
		return Record{}, false, err
	}
	next = Record{Kind: KindVersion, Target: target, Version: current.Version + 1, Score: r.Score}
	if r.Kind == KindVersion {
		next.Heuristics = r.Heuristics
	} else {
		next.Heuristics = slices.Clone(current.Heuristics)
		for _, h := range r.Heuristics {
			if !slices.ContainsFunc(next.Heuristics, func(o Heuristic) bool { return o.Key == h.Key || plain(o.Text) == plain(h.Text) }) {
				next.Heuristics = append(next.Heuristics, h)
			}
		}
	}
	if over := len(next.Heuristics) - most; over > 0 && most > 0 {
		next.Heuristics = next.Heuristics[over:]
	}
	if slices.Equal(next.Heuristics, current.Heuristics) {
		return current, false, nil
	}
	return next, true, nil
}

// current is the record of the heuristics that count, and the resources it is among.
func current(ctx context.Context, s shelf, target string) (Record, rawjson.Value, error) {
	set, err := s.Resources(ctx, target)
	if err != nil {
		return Record{}, nil, err
	}
	empty := Record{Kind: KindVersion, Target: target}
	if set == nil {
		return empty, rawjson.EmptyObject, nil
	}
	r, err := ReadRecord(set.Resources)
	if r == nil {
		return empty, set.Resources, err
	}
	return *r, set.Resources, err
}

// VersionID is where a version of heuristics is kept.
func VersionID(target string, version int64) string { return fmt.Sprintf("%s-v%d", target, version) }

// publish keeps a version and makes it count.
func publish(ctx context.Context, s shelf, r Record) error {
	if err := keep(ctx, s, r); err != nil {
		return err
	}
	set, err := s.Resources(ctx, VersionID(r.Target, r.Version))
	if err == nil && set != nil {
		_, err = s.UpdateResources(ctx, r.Target, set.Resources)
	}
	if err != nil {
		return fmt.Errorf("publishing version %d of the heuristics %s: %w", r.Version, r.Target, err)
	}
	return nil
}

// keep stores a version under an id of its own, with what else agents get.
func keep(ctx context.Context, s shelf, r Record) error {
	_, base, err := current(ctx, s, r.Target)
	if err != nil {
		return err
	}
	return put(ctx, s, VersionID(r.Target, r.Version), r, base)
}

// put stores a record unless it is stored already, among whatever else.
func put(ctx context.Context, s shelf, id string, r Record, base rawjson.Value) error {
	resources, err := r.resources(base)
	if err != nil {
		return err
	}
	stored, err := s.Resources(ctx, id)
	if err == nil && (stored == nil || string(stored.Resources.Get(RecordName)) != string(resources.Get(RecordName))) {
		_, err = s.UpdateResources(ctx, id, resources)
	}
	if err != nil {
		return fmt.Errorf("storing heuristics %s: %w", id, err)
	}
	return nil
}
