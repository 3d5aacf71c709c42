package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/aglq/aglq/queue"
)

// Resources is the set of resources that the rollout asks for, or the latest
// where it asks for none; nil when the store has none. The store is asked once
// for a task, by the first call.
func (t *Task) Resources() (*queue.ResourcesUpdate, error) { return t.resources() }

func (t *Task) fetchResources(ctx context.Context) (*queue.ResourcesUpdate, error) {
	var set *queue.ResourcesUpdate
	var err error
	if id := t.Rollout.ResourcesID; id != nil && *id != "" {
		set, err = t.worker.store.Resources(ctx, *id)
	} else {
		set, err = t.worker.store.LatestResources(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the resources of %s: %w", t.ref.RolloutID, err)
	}
	return set, nil
}

// LLM is the first language model among the resources. A proxy's endpoint comes
// with the path that files its traffic under the attempt. The error is NotFound
// when there is none.
func (t *Task) LLM() (queue.LLM, error) {
	var llm queue.LLM
	if err := t.first("llm", &llm, "llm", "proxy_llm"); err != nil {
		return queue.LLM{}, err
	}
	if llm.ResourceType == "proxy_llm" {
		llm.Endpoint = proxyEndpoint(llm.Endpoint, t.ref)
	}
	return llm, nil
}

// PromptTemplate is the first prompt template among the resources. The error is
// NotFound when there is none.
func (t *Task) PromptTemplate() (queue.PromptTemplate, error) {
	var p queue.PromptTemplate
	err := t.first(queue.PromptType, &p, queue.PromptType)
	return p, err
}

// first decodes the first resource of one of types.
func (t *Task) first(what string, into any, types ...string) error {
	set, err := t.Resources()
	if err != nil {
		return err
	}
	if set == nil {
		return queue.Errorf(queue.NotFound, "the store has no resources, and the task needs one of type %s", what)
	}
	for _, v := range set.Resources.Members() {
		if kind := v.Get("resource_type").Text(); slices.Contains(types, kind) {
			if err := json.Unmarshal(v, into); err != nil {
				return fmt.Errorf("decoding a resource of type %s: %w", kind, err)
			}
			return nil
		}
	}
	return queue.Errorf(queue.NotFound, "resources %s have none of type %s, and the task needs one", set.ResourcesID, what)
}

// proxyEndpoint puts an attempt into the path of an LLM proxy, before a closing
// "/v1".
func proxyEndpoint(endpoint string, ref queue.AttemptRef) string {
	endpoint = strings.TrimSuffix(endpoint, "/")
	root, versioned := strings.CutSuffix(endpoint, "/v1")
	root += "/rollout/" + ref.RolloutID + "/attempt/" + ref.AttemptID
	if versioned {
		root += "/v1"
	}
	return root
}
