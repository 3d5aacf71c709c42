package verify

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aglq/aglq/internal/sleep"
)

// FaultKind is a kind of fault.
type FaultKind string

// The kinds of fault.
const (
	StoreKill   FaultKind = "store-kill"   // SIGKILL of a store, and its restart
	StorePause  FaultKind = "store-pause"  // a store stands still for a while
	WorkerKill  FaultKind = "worker-kill"  // SIGKILL of a worker process; another takes its place
	ClientCut   FaultKind = "client-cut"   // all connections to a store are reset
	ClientDelay FaultKind = "client-delay" // data to and from a store is delayed
	ClientHang  FaultKind = "client-hang"  // connections to a store stay open and pass nothing
	ClientReset FaultKind = "client-reset" // connections to a store break in the middle of an answer
	MongoCut    FaultKind = "mongo-cut"    // the same four between the stores and a mongod
	MongoDelay  FaultKind = "mongo-delay"
	MongoHang   FaultKind = "mongo-hang"
	MongoReset  FaultKind = "mongo-reset"
	MongodKill  FaultKind = "mongod-kill" // SIGKILL of a mongod, and its restart
	StepDown    FaultKind = "step-down"   // the primary becomes a secondary
)

// FaultKinds lists every kind.
var FaultKinds = []FaultKind{
	StoreKill, StorePause, WorkerKill, ClientCut, ClientDelay, ClientHang, ClientReset,
	MongoCut, MongoDelay, MongoHang, MongoReset, MongodKill, StepDown,
}

// planned is a fault to be.
type planned struct {
	after  time.Duration // the end of the one before it
	kind   FaultKind
	length time.Duration // how long what is broken stays so
	target uint64        // of as many as there are, modulo
	along  bool          // with the one before it, not after it
}

// schedule plans faults for that time. Every fifth gap is long enough for
// everything to be well again: only then can it be told that a waiter was woken
// late. A short run has neither; its end is calm.
func schedule(rng *rand.Rand, kinds []FaultKind, total time.Duration) []planned {
	var out []planned
	if len(kinds) == 0 {
		return nil
	}
	long := total > 30*time.Second
	pause, length := 1200, 1800 // milliseconds
	if !long {
		pause, length = 300, 600
	}
	var order []FaultKind
	for at := time.Duration(0); ; {
		if len(order) == 0 { // each kind as often as every other
			order = slices.Clone(kinds)
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		f := planned{
			kind: order[0], after: time.Duration(200+rng.IntN(pause)) * time.Millisecond,
			length: time.Duration(200+rng.IntN(length)) * time.Millisecond,
			target: rng.Uint64(), along: len(out) > 0 && rng.IntN(5) == 0,
		}
		order = order[1:]
		if len(out)%5 == 4 && long {
			f.after, f.along = promptness+2*time.Second, false
		}
		if f.along {
			f.after = 0
		}
		if at += f.after + f.length; at > total {
			return out
		}
		out = append(out, f)
	}
}

// injector carries faults out.
type injector struct {
	d       *deployment
	workers *workerPool
	log     *slog.Logger

	mu     sync.Mutex
	faults []Fault
}

// run injects the faults that are planned until ctx ends, and returns when what
// was broken works again. Its error is one of verify itself.
func (in *injector) run(ctx context.Context, plan []planned) error {
	for len(plan) > 0 {
		if sleep.For(ctx, plan[0].after) != nil {
			return nil
		}
		together := 1
		for together < len(plan) && plan[together].along {
			together++
		}
		var group sync.WaitGroup
		errs := make([]error, together)
		for i, f := range plan[:together] {
			group.Go(func() { errs[i] = in.inject(ctx, f) })
		}
		group.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		plan = plan[together:]
	}
	return nil
}

// inject carries out one fault. It undoes it even when ctx ends.
func (in *injector) inject(ctx context.Context, f planned) error {
	fault := Fault{Kind: f.kind, Begin: now()}
	target, err := in.carryOut(ctx, f)
	fault.Target, fault.End = target, now()
	if skipped, ok := err.(errSkipped); ok {
		fault.Error, err = skipped.Error(), nil
	}
	in.log.Debug("fault", "kind", fault.Kind, "target", target, "took", time.Duration(fault.End-fault.Begin), "skipped", fault.Error)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.faults = append(in.faults, fault)
	if err != nil {
		return fmt.Errorf("injecting %s on %s: %w", f.kind, target, err)
	}
	return nil
}

func (in *injector) carryOut(ctx context.Context, f planned) (target string, err error) {
	whole := context.WithoutCancel(ctx)
	switch f.kind {
	case StoreKill, StorePause:
		s := in.d.stores[f.target%uint64(len(in.d.stores))]
		if f.kind == StorePause {
			return s.name, s.pause(ctx, f.length)
		}
		return s.name, s.killAndRestart(ctx, f.length/4)
	case WorkerKill:
		return in.workers.replace(f.target)
	case MongodKill, StepDown:
		return in.breakMongod(whole, f)
	}
	links, name := in.d.storeProxies, "link to store"
	if strings.HasPrefix(string(f.kind), "mongo-") {
		links, name = in.d.mongoProxies, "link to mongod"
	}
	i := f.target % uint64(len(links))
	spoil(ctx, links[i], f)
	return fmt.Sprintf("%s %d", name, i), nil
}

// spoil makes a link ill for a while.
func spoil(ctx context.Context, p *proxy, f planned) {
	switch f.kind {
	case ClientCut, MongoCut:
		p.cut()
		return
	case ClientDelay, MongoDelay:
		p.slow(f.length / 20)
	case ClientHang, MongoHang:
		p.hang()
	case ClientReset, MongoReset:
		p.cutAnswers(0.3)
	}
	_ = sleep.For(ctx, f.length)
	p.heal()
	if f.kind == ClientHang || f.kind == MongoHang {
		p.cut()
	}
}

func (in *injector) breakMongod(ctx context.Context, f planned) (string, error) {
	set := in.d.mongod
	if f.kind == StepDown {
		rest := max(time.Second, f.length)
		if set.Members() > 1 {
			rest = 10 * time.Second // another one is elected at once
		}
		if err := set.StepDown(ctx, rest); err != nil {
			return "primary", errSkipped{err} // a set that is electing has nobody to step down
		}
		return "primary", set.Ready(ctx)
	}
	i := int(f.target % uint64(set.Members()))
	if primary, err := set.Primary(ctx); err == nil && primary >= 0 && f.target%3 > 0 {
		i = primary // the more interesting one
	}
	set.Kill(i)
	_ = sleep.For(ctx, f.length/4)
	return fmt.Sprintf("mongod %d", i), set.Restart(ctx, i)
}

// errSkipped is a fault that could not be injected, which is no harm.
type errSkipped struct{ error }

func (in *injector) all() []Fault {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.faults
}

func (in *injector) count() int { return len(in.all()) }
