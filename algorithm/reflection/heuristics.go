package reflection

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aglq/aglq/algorithm"
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
	// Follows says that the target was made for the heuristics alone. With each
	// version it takes all else from the resources that are the latest then.
	Follows bool `json:"follows_latest,omitempty"`
	// Score is the mean reward on the validation tasks, where they were scored.
	Score *float64 `json:"score,omitempty"`
}

// resources puts a record in place of that of base, and heuristics made of it, unless
// they are only proposed: what agents get then stays as it is.
func (r Record) resources(base rawjson.Value) (rawjson.Value, error) {
	record, err := algorithm.StateResource(r)
	if err != nil {
		return nil, err
	}
	own := map[string]rawjson.Value{RecordName: record}
	if r.Kind != KindProposal {
		lines := make([]string, len(r.Heuristics))
		for i, h := range r.Heuristics {
			lines[i] = "- " + plain(h.Text)
		}
		if own[HeuristicsName], err = algorithm.TextResource(strings.Join(lines, "\n")); err != nil {
			return nil, err
		}
	}
	var dst []byte
	for key, val := range base.Members() {
		if _, ok := own[rawjson.Unescape(key)]; !ok {
			dst = rawjson.AppendMember(dst, key, val)
		}
	}
	for _, name := range []string{HeuristicsName, RecordName} {
		if v, ok := own[name]; ok {
			dst = rawjson.AppendMember(dst, []byte(name), v)
		}
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
	var r Record
	found, err := algorithm.ReadState(resources.Get(RecordName), &r)
	if err != nil {
		return nil, fmt.Errorf("reading the record of heuristics %s: %w", RecordName, err)
	}
	if !found {
		return nil, nil
	}
	return &r, nil
}

// shelf is the part of a store that has resources.
type shelf interface {
	Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error)
	LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error)
	UpdateResources(ctx context.Context, id string, resources rawjson.Value) (queue.ResourcesUpdate, error)
}

// DefaultMaxHeuristics bounds how many heuristics are kept, for they take room in
// prompts: the oldest go.
const DefaultMaxHeuristics = 50

// Promote makes a set of resources count: a proposal is added to the heuristics it is
// meant for, a version takes their place, and a set without a record is copied over
// those of target whole. A target that is not there begins as the latest resources. An empty target is that of the record. It returns the id and
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
	next = Record{Kind: KindVersion, Target: target, Version: current.Version + 1, Follows: current.Follows, Score: r.Score}
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

// current is the record of the heuristics that count, and the resources that agents
// get beside them.
func current(ctx context.Context, s shelf, target string) (Record, rawjson.Value, error) {
	set, err := s.Resources(ctx, target)
	if err != nil {
		return Record{}, nil, err
	}
	r := &Record{Kind: KindVersion, Target: target, Follows: true}
	if set != nil {
		r.Follows = false
		stored, err := ReadRecord(set.Resources)
		if err != nil {
			return Record{}, nil, err
		}
		r = cmp.Or(stored, r)
	}
	if r.Follows {
		if set, err = s.LatestResources(ctx); err != nil {
			return Record{}, nil, fmt.Errorf("looking for the latest resources: %w", err)
		}
	}
	if set == nil {
		return *r, rawjson.EmptyObject, nil
	}
	return *r, set.Resources, nil
}

// VersionID is where a version of heuristics is kept: in a hidden set, since it is
// for the way back.
func VersionID(target string, version int64) string { return fmt.Sprintf(".%s-v%d", target, version) }

// publish keeps a version, and then makes it count.
func publish(ctx context.Context, s shelf, r Record) error {
	_, base, err := current(ctx, s, r.Target)
	if err != nil {
		return err
	}
	resources, err := put(ctx, s, VersionID(r.Target, r.Version), r, base)
	if err != nil {
		return err
	}
	if _, err := s.UpdateResources(ctx, r.Target, resources); err != nil {
		return fmt.Errorf("publishing version %d of the heuristics %s: %w", r.Version, r.Target, err)
	}
	return nil
}

// put stores a record unless it is stored already, among whatever else, and returns
// what it makes of base.
func put(ctx context.Context, s shelf, id string, r Record, base rawjson.Value) (rawjson.Value, error) {
	resources, err := r.resources(base)
	if err != nil {
		return nil, err
	}
	stored, err := s.Resources(ctx, id)
	if err == nil && (stored == nil || string(stored.Resources.Get(RecordName)) != string(resources.Get(RecordName))) {
		_, err = s.UpdateResources(ctx, id, resources)
	}
	if err != nil {
		return nil, fmt.Errorf("storing heuristics %s: %w", id, err)
	}
	return resources, nil
}
