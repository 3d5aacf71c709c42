// Package docker_test checks what is in this folder without a Docker engine.
package docker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
)

// load reads a file as docker compose config does, with every check of it.
func load(t *testing.T, file string, profiles []string, env ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{file}, cli.WithEnv(env), cli.WithProfiles(profiles), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("%s %v: %v", file, profiles, err)
	}
	return project
}

// deployment is a compose file, with a profile, and what it must start.
type deployment struct {
	file, profile string
	services      []string
	ports         []string
}

var observed = []string{"grafana", "node-exporter", "prometheus"}

var deployments = []deployment{
	{"compose.yml", "memory", append([]string{"app"}, observed...), []string{"3000<9091", "4747<4747", "9090<9090", "9100<9100"}},
	{"compose.yml", "mongo", append([]string{"app-mongo", "mongo", "mongodb-exporter"}, observed...),
		[]string{"3000<9091", "4747<4747", "9090<9090", "9100<9100", "9216<9216"}},
	{"compose.yml", "scale", append([]string{"app-1", "app-2", "app-3", "mongo", "mongodb-exporter", "proxy"}, observed...),
		[]string{"3000<9091", "4747<4747", "9090<9090", "9100<9100", "9216<9216"}},
	{"compose.store.yml", "", []string{"app"}, []string{"4747<4747"}},
	{"compose.mongo.yml", "", []string{"mongo"}, []string{"27017<27017"}},
	{"compose.prometheus-memory-store.yml", "", append([]string{"app", "app-exporter"}, observed...),
		[]string{"3000<9091", "4747<4747", "4748<4748", "9090<9090", "9100<9100"}},
	{"compose.prometheus-mongo-store.yml", "", append([]string{"app", "app-exporter", "mongo", "mongodb-exporter"}, observed...),
		[]string{"3000<9091", "4747<4747", "4748<4748", "9090<9090", "9100<9100", "9216<9216"}},
	{"compose.grafana.yml", "", []string{"grafana", "prometheus"}, []string{"3000<9091", "9090<9090"}},
}

func (d deployment) load(t *testing.T) *types.Project {
	var profiles []string
	if d.profile != "" {
		profiles = []string{d.profile}
	}
	return load(t, d.file, profiles, "AGL_MONITORING_DATA_PATH=/data")
}

// TestComposeFiles loads every file and profile: names and ports are those that
// users of the reference know.
func TestComposeFiles(t *testing.T) {
	tested := map[string]bool{"compose.base.yml": true} // by those that extend it
	for _, d := range deployments {
		t.Run(strings.TrimSpace(d.file+" "+d.profile), func(t *testing.T) {
			tested[d.file] = true
			project := d.load(t)
			slices.Sort(d.services)
			if diff := cmp.Diff(d.services, project.ServiceNames()); diff != "" {
				t.Errorf("services: %s", diff)
			}
			var ports []string
			for _, s := range project.Services {
				for _, p := range s.Ports {
					ports = append(ports, strconv.Itoa(int(p.Target))+"<"+p.Published)
				}
			}
			slices.Sort(ports)
			if diff := cmp.Diff(d.ports, ports); diff != "" {
				t.Errorf("ports: %s", diff)
			}
		})
	}
	files, err := filepath.Glob("compose*.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !tested[file] {
			t.Errorf("%s is not tested", file)
		}
	}
}

// TestMountsExist finds everything that is mounted from this folder.
func TestMountsExist(t *testing.T) {
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	mounts := 0
	for _, d := range deployments {
		for _, s := range d.load(t).Services {
			for _, v := range s.Volumes {
				if v.Type != types.VolumeTypeBind || !strings.HasPrefix(v.Source, here) {
					continue
				}
				mounts++
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: service %s mounts %s: %v", d.file, s.Name, v.Source, err)
				}
			}
		}
	}
	if mounts == 0 {
		t.Error("nothing is mounted")
	}
}

// TestPrometheusKeepsExemplars checks what docs/metrics.md promises of each
// Prometheus that scrapes.
func TestPrometheusKeepsExemplars(t *testing.T) {
	for _, d := range deployments {
		s, ok := d.load(t).Services["prometheus"]
		if ok && d.file != "compose.grafana.yml" && !slices.Contains(s.Command, "--enable-feature=exemplar-storage") {
			t.Errorf("%s %s: Prometheus keeps no exemplars: %v", d.file, d.profile, s.Command)
		}
	}
}

// TestStoresAreFound checks what other parts rely on: Prometheus finds every
// store under the name app, the proxy knows each, and those on MongoDB wait for
// it.
func TestStoresAreFound(t *testing.T) {
	proxy, err := os.ReadFile("nginx/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range deployments {
		stores := 0
		for _, s := range d.load(t).Services {
			if !strings.HasPrefix(s.Name, "app") || s.Name == "app-exporter" {
				continue
			}
			stores++
			network := s.Networks["default"]
			if s.Name != "app" && (network == nil || !slices.Contains(network.Aliases, "app")) {
				t.Errorf("%s: %s is not known as app", d.file, s.Name)
			}
			if d.profile == "scale" && !strings.Contains(string(proxy), "server "+s.Name+":4747 ") {
				t.Errorf("the proxy does not know %s", s.Name)
			}
			if slices.Contains(s.Command, "mongo") != (s.DependsOn["mongo"].Condition == types.ServiceConditionHealthy) {
				t.Errorf("%s: %s and its database: %v, %v", d.file, s.Name, s.Command, s.DependsOn)
			}
			if s.Ulimits["nofile"] == nil || s.Ulimits["nofile"].Hard != 65535 || !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") {
				t.Errorf("%s: %s is not confined as it should be", d.file, s.Name)
			}
		}
		if want := map[string]int{"scale": 3}[d.profile]; want > 0 && stores != want {
			t.Errorf("%s %s starts %d stores", d.file, d.profile, stores)
		}
	}
}
