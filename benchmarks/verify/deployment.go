package verify

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/connstring"

	"github.com/aglq/aglq/collections/mongo/mongod"
)

// lease is the worker TTL of the stores that a run starts: short, so that much
// is lost and comes back in little time.
const lease = 2 * time.Second

// deployment is what a run is about: stores, and whatever of their surroundings
// is ours to break.
type deployment struct {
	urls   []string // by which clients reach the stores
	direct []string // the same past the proxies
	stores []*storeProcess
	mongod *mongod.Set // nil where it is not ours
	dir    string      // of logs

	storeProxies []*proxy // one a store
	mongoProxies []*proxy // one a mongod
	drop         func(ctx context.Context) error
}

// deploy starts what o asks for.
func deploy(ctx context.Context, o Options) (*deployment, error) {
	d := &deployment{direct: o.URLs, drop: func(context.Context) error { return nil }}
	err := d.startAll(ctx, o)
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *deployment) startAll(ctx context.Context, o Options) (err error) {
	if d.dir, err = os.MkdirTemp("", "aglq-verify-"); err != nil {
		return err
	}
	if len(o.URLs) == 0 {
		if err := d.startStores(ctx, o); err != nil {
			return err
		}
	}
	for _, url := range d.direct {
		host, ok := plainHost(url)
		if !ok {
			d.urls = append(d.urls, url) // TLS: nothing that a proxy could stand in for
			continue
		}
		p, err := newProxy(host)
		if err != nil {
			return err
		}
		d.storeProxies = append(d.storeProxies, p)
		d.urls = append(d.urls, strings.Replace(url, host, p.addr(), 1))
	}
	return nil
}

// plainHost is the host and port of an http URL.
func plainHost(url string) (string, bool) {
	rest, ok := strings.CutPrefix(url, "http://")
	if !ok {
		return "", false
	}
	host, _, _ := strings.Cut(rest, "/")
	return host, strings.Contains(host, ":")
}

func (d *deployment) startStores(ctx context.Context, o Options) error {
	args := []string{
		"--host", "127.0.0.1", "--worker-ttl", fmt.Sprint(lease.Seconds()), "--scan-interval", "0.2",
		"--log-level", "WARNING", "--backend", o.Backend,
	}
	if o.Backend == "mongo" {
		uri, err := d.startMongo(ctx, o)
		if err != nil {
			return err
		}
		args = append(args, "--mongo-uri", uri, "--mongo-database", d.database(o))
	}
	for i := range o.Stores {
		s, err := newStoreProcess(i, nil, d.dir)
		if err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(s.addr)
		s.command = slices.Concat(o.Command, []string{"store", "--port", port}, args)
		d.stores = append(d.stores, s)
		if err := s.start(ctx); err != nil {
			return err
		}
		d.direct = append(d.direct, "http://"+s.addr)
	}
	return nil
}

// database is one of this run's own.
func (d *deployment) database(o Options) string {
	return fmt.Sprintf("aglq_verify_%d_%d", os.Getpid(), o.Seed)
}

// startMongo starts a replica set, or takes the one that is given, and puts
// proxies before it.
func (d *deployment) startMongo(ctx context.Context, o Options) (uri string, err error) {
	if o.MongoURI == "" {
		d.mongod, err = mongod.Start(ctx, mongod.Options{Binary: o.Mongod, Members: o.Members, Advertise: d.proxyMember})
		if err != nil {
			return "", err
		}
		return d.mongod.URI(), nil
	}
	d.drop = func(ctx context.Context) error { return dropDatabase(ctx, o.MongoURI, d.database(o)) }
	return d.proxyURI(o.MongoURI)
}

// proxyMember puts a proxy before a member of a set: its own address is that of
// the proxy then, for clients and for the other members, whose connections are
// spared.
func (d *deployment) proxyMember(addr string) (string, error) {
	p, err := newProxy(addr)
	if err != nil {
		return "", err
	}
	p.spares = memberOfSet
	d.mongoProxies = append(d.mongoProxies, p)
	return p.addr(), nil
}

// proxyURI puts a proxy before the only host of a URI. Where there are several,
// or TLS, clients find their own way past any proxy, so there is none.
func (d *deployment) proxyURI(uri string) (string, error) {
	if !Proxied(uri) {
		return uri, nil
	}
	parsed, err := connstring.Parse(uri)
	if err != nil {
		return "", fmt.Errorf("reading the MongoDB URI: %w", err)
	}
	host := parsed.Hosts[0]
	target := host
	if !strings.Contains(target, ":") {
		target += ":27017"
	}
	p, err := newProxy(target)
	if err != nil {
		return "", err
	}
	d.mongoProxies = append(d.mongoProxies, p)
	uri = strings.Replace(uri, host, p.addr(), 1)
	switch {
	case parsed.DirectConnectionSet && parsed.DirectConnection:
		return uri, nil
	case strings.Contains(uri, "?"):
		return uri + "&directConnection=true", nil
	case strings.Count(uri, "/") < 3:
		return uri + "/?directConnection=true", nil
	}
	return uri + "?directConnection=true", nil
}

// Proxied reports whether faults can be put between stores and the MongoDB of
// that URI: it has one host, and no TLS.
func Proxied(uri string) bool {
	parsed, err := connstring.Parse(uri)
	return err == nil && len(parsed.Hosts) == 1 && parsed.Scheme == connstring.SchemeMongoDB && !parsed.SSL
}

func dropDatabase(ctx context.Context, uri, name string) error {
	client, err := driver.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }()
	if err := client.Database(name).RunCommand(ctx, bson.D{{Key: "dropDatabase", Value: 1}}).Err(); err != nil {
		return fmt.Errorf("dropping the database %s: %w", name, err)
	}
	return nil
}

// heal makes everything work again, as far as it is ours, and returns when it
// does.
func (d *deployment) heal(ctx context.Context) error {
	for _, p := range slices.Concat(d.storeProxies, d.mongoProxies) {
		p.heal()
	}
	if d.mongod != nil {
		if err := d.mongod.Ready(ctx); err != nil {
			return err
		}
	}
	for _, s := range d.stores {
		s.mu.Lock()
		s.noteCrash()
		s.mu.Unlock()
		if err := s.healthy(ctx); err != nil {
			return err
		}
	}
	return nil
}

// crashes are the ends of stores that nobody killed.
func (d *deployment) crashes() (out []string) {
	for _, s := range d.stores {
		s.mu.Lock()
		out = append(out, s.crashes...)
		s.mu.Unlock()
	}
	return out
}

// close ends everything that was started.
func (d *deployment) close() {
	for _, s := range d.stores {
		s.stop()
	}
	for _, p := range slices.Concat(d.storeProxies, d.mongoProxies) {
		p.close()
	}
	if d.mongod != nil {
		d.mongod.Close()
	}
	_ = os.RemoveAll(d.dir)
}

// cleanEnv is the environment without what would configure aglq.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "AGL_") || strings.HasPrefix(v, "OTEL_")
	})
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}
