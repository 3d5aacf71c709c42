package semconv_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/semconv"
)

func ExampleFlatten() {
	nested := rawjson.Value(`{"user":{"name":"ada","scores":[1,2]},"empty":[]}`)
	flat := semconv.Flatten(nested, false)
	fmt.Println(string(flat))
	// Output: {"user.name":"ada","user.scores":[1,2]}
}

func TestUnflattenUnder(t *testing.T) {
	attributes := rawjson.Value(`{"p.0.role":"user","px.y":1,"p.0.content":"hi","q":2,"p.1":"x"}`)
	for prefix, want := range map[string]string{"p": `[{"role":"user","content":"hi"},"x"]`, "px": `{"y":1}`, "none": `{}`} {
		got, err := semconv.UnflattenUnder(attributes, prefix)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", prefix, got, err, want)
		}
	}
	if got, err := semconv.UnflattenUnder(attributes, "q"); queue.KindOf(err) != queue.Invalid {
		t.Errorf("a prefix with a value: %s, %v", got, err)
	}
}

func TestUnflattenBoundsTheDepth(t *testing.T) {
	deep := rawjson.Value(`{"` + strings.Repeat("a.", 1<<20) + `":1}`)
	if _, err := semconv.Unflatten(deep); queue.KindOf(err) != queue.Invalid {
		t.Errorf("a million segments: %v", err)
	}
	if got, err := semconv.Unflatten(rawjson.Value(`{"` + strings.Repeat("a.", 200) + `":1}`)); err != nil || rawjson.Value(got).Kind() != rawjson.KindObject {
		t.Errorf("200 segments: %v", err)
	}
}

func TestUnflattenManyNames(t *testing.T) {
	var flat []byte
	for i := range 30 { // more than are looked for one by one
		flat = rawjson.AppendMember(flat, []byte{'k', byte('a' + i%26), '.', byte('a' + i/26)}, rawjson.AppendInt(nil, int64(i)))
	}
	got, err := semconv.Unflatten(append(flat, '}'))
	if err != nil || string(got.Get("ka")) != `{"a":0,"b":26}` || string(got.Get("kz")) != `{"a":25}` {
		t.Errorf("%s, %v", got, err)
	}
}

// trees are values that flattening loses nothing of: no empty lists and objects,
// and no names that are numbers, empty or have dots.
func trees(depth int) *rapid.Generator[rawjson.Value] {
	return rapid.Custom(func(t *rapid.T) rawjson.Value {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		if depth == 0 {
			kind %= 4
		}
		switch kind {
		case 0:
			return rawjson.AppendInt(nil, rapid.Int64().Draw(t, "int"))
		case 1:
			return rawjson.AppendFloat(nil, rapid.Float64Range(-1e9, 1e9).Draw(t, "float"))
		case 2:
			return rawjson.AppendString(nil, rapid.String().Draw(t, "text"))
		case 3:
			return rawjson.Null
		case 4:
			return list(t, depth)
		}
		return object(t, depth)
	})
}

func list(t *rapid.T, depth int) rawjson.Value {
	dst := []byte{'['}
	for i, item := range rapid.SliceOfN(trees(depth-1), 1, 4).Draw(t, "items") {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, item...)
	}
	return append(dst, ']')
}

func object(t *rapid.T, depth int) rawjson.Value {
	var dst []byte
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zé"\\]{1,3}`), 1, 12, rapid.ID[string]).Draw(t, "names")
	for _, name := range names {
		quoted := rawjson.AppendString(nil, name)
		dst = rawjson.AppendMember(dst, quoted[1:len(quoted)-1], trees(depth-1).Draw(t, "value"))
	}
	return append(dst, '}')
}

func TestUnflattenTakesBackWhatFlattenGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := object(t, 3)
		for _, expand := range []bool{false, true} {
			got, err := semconv.Unflatten(semconv.Flatten(v, expand))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(v), string(got)); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func TestSanitizedValuesPassTheCheck(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flat := semconv.Flatten(object(t, 3), false)
		if err := semconv.Check(semconv.Sanitize(flat)); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzFlatten holds that flattening gives flat JSON, that what unflattens flattens
// to the same again, and that nothing panics.
func FuzzFlatten(f *testing.F) {
	for _, seed := range []string{`{"a":{"b":1,"c":[2,3]},"d":[1,"x"]}`, `{"a.b":1,"a":{"b":2}}`, `[[],{}]`, `{"":{"":1}}`, `{"0":1,"1":[true,null]}`, `5`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := rawjson.Parse([]byte(text))
		if err != nil {
			return
		}
		flat := semconv.Flatten(v, true)
		vanishing := false // names that are empty at the top, as in the reference
		for key, val := range flat.Members() {
			vanishing = vanishing || len(key) == 0 || key[0] == '.'
			if k := val.Kind(); k == rawjson.KindObject || k == rawjson.KindArray {
				t.Errorf("%s is not flat: %s", key, val)
			}
		}
		reparsed, err := rawjson.Parse(flat)
		if err != nil || string(reparsed) != string(flat) {
			t.Fatalf("not canonical: %s, %v", flat, err)
		}
		nested, err := semconv.Unflatten(flat)
		if err != nil || vanishing { // the error is that it is too deep
			return
		}
		again, err := semconv.Unflatten(semconv.Flatten(nested, true))
		if err != nil || string(again) != string(nested) {
			t.Errorf("%s\nunflattens to %s\nand then to %s, %v", flat, nested, again, err)
		}
	})
}
