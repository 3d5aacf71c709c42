package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// AddResources implements queue.Store.
func (c *Client) AddResources(ctx context.Context, resources rawjson.Value) (queue.ResourcesUpdate, error) {
	v, err := c.create(ctx, route("resources"), resources)
	if err != nil {
		return queue.ResourcesUpdate{}, err
	}
	return decodeResources(v)
}

// UpdateResources implements queue.Store.
func (c *Client) UpdateResources(ctx context.Context, id string, resources rawjson.Value) (queue.ResourcesUpdate, error) {
	v, err := c.create(ctx, route("resources", id), resources)
	if err != nil {
		return queue.ResourcesUpdate{}, err
	}
	return decodeResources(v)
}

// Resources implements queue.Store.
func (c *Client) Resources(ctx context.Context, id string) (*queue.ResourcesUpdate, error) {
	v, err := c.get(ctx, route("resources", id))
	if err != nil {
		return nil, err
	}
	return maybe(v, decodeResources)
}

// LatestResources implements queue.Store.
func (c *Client) LatestResources(ctx context.Context) (*queue.ResourcesUpdate, error) {
	return c.Resources(ctx, "latest")
}

// QueryResources implements queue.Store.
func (c *Client) QueryResources(ctx context.Context, q queue.ResourcesQuery) (queue.Page[queue.ResourcesUpdate], error) {
	params := url.Values{"limit": {strconv.Itoa(q.Limit)}, "offset": {strconv.Itoa(q.Offset)}}
	if q.SortBy != "" {
		params.Set("sort_by", q.SortBy)
	}
	if q.Descending {
		params.Set("sort_order", "desc")
	}
	if q.ID != nil {
		params.Set("resources_id", *q.ID)
	}
	if q.IDContains != nil {
		params.Set("resources_id_contains", *q.IDContains)
	}
	v, err := c.get(ctx, route("resources")+"?"+params.Encode())
	if err != nil {
		return queue.Page[queue.ResourcesUpdate]{}, err
	}
	return page(v, decodeResources)
}

// Statistics implements queue.Store. What a store does not count stays 0.
func (c *Client) Statistics(ctx context.Context) (queue.Statistics, error) {
	v, err := c.get(ctx, route("statistics"))
	if err != nil {
		return queue.Statistics{}, err
	}
	if v.Kind() != rawjson.KindObject {
		return queue.Statistics{}, unexpected("statistics", v)
	}
	count := func(name string) int64 { n, _ := v.Get(name).Int(); return n }
	seconds := func(name string) time.Duration {
		f, _ := v.Get(name).Float()
		return time.Duration(f * float64(time.Second))
	}
	s := queue.Statistics{
		Name:      v.Get("name").Text(),
		Rollouts:  count("total_rollouts"),
		Attempts:  count("total_attempts"),
		Spans:     count("total_spans"),
		Resources: count("total_resources"),
		Workers:   count("total_workers"),
		Uptime:    seconds("uptime"),
		WorkerTTL: seconds("worker_ttl_seconds"),
	}
	for status, n := range v.Get("rollouts_by_status").Members() {
		if s.ByStatus == nil {
			s.ByStatus = map[queue.RolloutStatus]int64{}
		}
		s.ByStatus[queue.RolloutStatus(status)], _ = n.Int()
	}
	if v.Get("memory_capacity_bytes") != nil {
		s.Memory = &queue.MemoryStatistics{
			SpanBytes:         count("total_span_bytes"),
			EvictionThreshold: count("eviction_threshold_bytes"),
			SafeThreshold:     count("safe_threshold_bytes"),
			Capacity:          count("memory_capacity_bytes"),
			EvictedSpans:      count("evicted_spans"),
		}
	}
	return s, nil
}
