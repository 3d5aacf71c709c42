package adapter

import (
	"testing"

	"github.com/aglq/aglq/queue/rawjson"
)

func TestParseLiteral(t *testing.T) {
	for text, want := range map[string]string{
		`[1, -2, 3.5, 1e-05]`:                 `[1,-2,3.5,0.00001]`,
		`{'a': None, "b": True, 'c': False,}`: `{"a":null,"b":true,"c":false}`,
		`(1, 2)`:                              `[1,2]`,
		`(1,)`:                                `[1]`,
		`(1)`:                                 `1`,
		`()`:                                  `[]`,
		`[]`:                                  `[]`,
		`{}`:                                  `{}`,
		`[[1], [2, [3]],]`:                    `[[1],[2,[3]]]`,
		`'it\'s "so"\n\t\\ \x41\u00e9\101'`:   `"it's \"so\"\n\t\\ AéA"`,
		`"it's" ' and' " more"`:               `"it's and more"`,
		`'\d\U0001f389'`:                      `"\\d🎉"`,
		`{"json": null, "x": [true, false]}`:  `{"json":null,"x":[true,false]}`,
		` [ 1 ] `:                             `[1]`,
		"'a\\\nb'":                            `"ab"`,
	} {
		got, err := parseLiteral(text)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		``, `[1`, `[1 2]`, `[,]`, `{'a'}`, `{'a': }`, `{1: 2}`, `'a`, `'\x4'`, `'\U00110000'`, `nan`, `f(1)`, `1 2`, `[1]]`, `'a' 1`, `1_0`, `--1`, "'a\nb'", `(,)`, `None]`,
	} {
		if got, err := parseLiteral(text); err == nil {
			t.Errorf("%q is taken as %s", text, got)
		}
	}
}

// FuzzParseLiteral holds that what is taken is JSON in canonical form, and that
// nothing panics.
func FuzzParseLiteral(f *testing.F) {
	for _, seed := range []string{`[{'a': "b", 'c': None}]`, `(1, 2.5, -3e7)`, `'\x41\u00e9'`, `{"a": [true]}`, `"a" 'b'`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseLiteral(text)
		if err != nil {
			return
		}
		again, err := rawjson.Parse(v)
		if err != nil || string(again) != string(v) {
			t.Errorf("%q gives %s, which is not canonical: %v", text, v, err)
		}
	})
}
