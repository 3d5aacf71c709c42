package llmproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"time"

	"github.com/aglq/aglq/queue"
)

// SetModels replaces the entries that came from options, the file or the admin
// API. Those of resources stay. Calls under way go on as they began.
func (p *Proxy) SetModels(entries []Entry) {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	p.base = entries
	p.rebuild()
}

func (p *Proxy) follow(entries []Entry) {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	p.followed = entries
	p.rebuild()
}

// rebuild makes the table of both kinds of entries; called with reloading held.
func (p *Proxy) rebuild() {
	names := map[string]bool{}
	for _, e := range p.followed {
		names[e.Name] = true
	}
	var entries []Entry
	for _, e := range p.base {
		if !names[e.Name] {
			entries = append(entries, e)
		}
	}
	p.models.Store(newTable(append(entries, p.followed...), p.models.Load()))
}

// ModelNames lists what agents may ask for, in the order of the table.
func (p *Proxy) ModelNames() []string {
	var names []string
	for _, m := range p.models.Load().order {
		names = append(names, m.name)
	}
	return names
}

// modelsFile is a model table on disk.
type modelsFile struct {
	path string
	more []Entry           // behind those of the file
	seen [sha256.Size]byte // of the text that was read last
}

func (f *modelsFile) read() ([]Entry, error) {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil, queue.Wrap(queue.Invalid, err, "reading the model table")
	}
	f.seen = sha256.Sum256(text)
	entries, err := ParseModels(text)
	return append(entries, f.more...), queue.Wrap(queue.Invalid, err, f.path)
}

// changed reports whether the file holds something new.
func (f *modelsFile) changed() bool {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return false // in the middle of being replaced, or gone: the table stays
	}
	sum := sha256.Sum256(text)
	return !bytes.Equal(sum[:], f.seen[:])
}

// watchFile takes over what the file says whenever it changes.
func (p *Proxy) watchFile(f *modelsFile) {
	p.regularly(func() {
		if !f.changed() {
			return
		}
		entries, err := f.read()
		if err != nil {
			p.log.Error("the model table is broken; the last good one stays", "error", err)
			return
		}
		p.SetModels(entries)
		p.log.Info("model table reloaded", "path", f.path, "entries", len(entries))
	})
}

// watchResources takes over the language models of the latest resources.
func (p *Proxy) watchResources() {
	seen := ""
	var warning rarely
	look := func() {
		ctx, cancel := context.WithTimeout(p.ending, numberTimeout)
		defer cancel()
		latest, err := p.store.LatestResources(ctx)
		if err != nil {
			if p.ending.Err() == nil && warning.now() {
				p.log.Warn("cannot read the resources; the models stay", "error", err)
			}
			return
		}
		if latest == nil {
			return
		}
		version := fmt.Sprintf("%s/%d/%v", latest.ResourcesID, latest.Version, latest.UpdateTime)
		if version == seen {
			return
		}
		seen = version
		entries, err := resourceEntries(latest.Resources)
		if err != nil {
			p.log.Error("resources have a broken language model; the models stay", "resources_id", latest.ResourcesID, "error", err)
			return
		}
		p.follow(entries)
		p.log.Info("models taken from resources", "resources_id", latest.ResourcesID, "version", latest.Version, "entries", len(entries))
	}
	look()
	p.regularly(look)
}

// regularly does something every ReloadInterval until the proxy ends.
func (p *Proxy) regularly(do func()) {
	ticks := time.NewTicker(p.opts.ReloadInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			do()
		case <-p.ending.Done():
			return
		}
	}
}
