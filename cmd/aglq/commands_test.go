package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"
)

var (
	// codeInText is what Markdown shows as code: blocks that are fenced or indented,
	// and words between backquotes.
	codeInText = regexp.MustCompile("(?ms)^ *```.*?^ *```|^    [^\n]*|`[^`]*`")
	comment    = regexp.MustCompile(`(?m)(^|\s)#.*$`)
	invocation = regexp.MustCompile(`(?m)(?:^|[\s"'/;&|(\x60])aglq((?: +[^\s|;&\x60"'.,:)]+)*)`)
)

// TestCommandsExist finds the commands and options that documents, alerts, boards
// and compose files tell readers to use. What is no command must not look like
// one there: "the board aglq", not the other way round.
func TestCommandsExist(t *testing.T) {
	root := (&app{}).root()
	seen := 0
	for _, place := range []string{"README.md", "docs", "docker", "examples"} {
		err := filepath.WalkDir(filepath.Join("..", "..", place), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !slices.Contains([]string{".md", ".yml", ".json"}, filepath.Ext(path)) {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			code := []string{comment.ReplaceAllString(string(content), "")}
			if filepath.Ext(path) == ".md" {
				code = codeInText.FindAllString(string(content), -1)
				for i := range code {
					if code[i] = strings.ReplaceAll(code[i], "\\\n", " "); !strings.HasPrefix(strings.TrimSpace(code[i]), "```") {
						code[i] = strings.ReplaceAll(code[i], "\n", " ") // words that are wrapped
					}
				}
			}
			for _, text := range code {
				for _, m := range invocation.FindAllStringSubmatch(text, -1) {
					for words := range strings.SplitSeq(m[1], " aglq ") { // of several in one sentence
						seen++
						if fault := misused(root, strings.Fields(words)); fault != "" {
							t.Errorf("%s: aglq %s: %s", path, words, fault)
						}
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 100 {
		t.Errorf("only %d commands were found", seen)
	}
}

var (
	option = regexp.MustCompile(`^--([a-z][a-z-]*)`)
	name   = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

// misused says what is wrong with the words after a command's name, "" for
// nothing; options are those of the commands above it.
func misused(cmd *cli.Command, words []string, options ...string) string {
	if len(words) > 0 {
		if sub := cmd.Command(words[0]); sub != nil {
			for _, f := range cmd.Flags {
				options = append(options, f.Names()...)
			}
			return misused(sub, words[1:], options...)
		}
		if len(cmd.Commands) > 0 && (cmd.ArgsUsage == "" || cmd.ArgsUsage == "COMMAND") && name.MatchString(words[0]) {
			return "there is no command " + words[0]
		}
	}
	options = append(options, "help", "version")
	for _, f := range cmd.Flags {
		options = append(options, f.Names()...)
	}
	for _, word := range words {
		if word == "--" { // what follows is the agent's
			break
		}
		if m := option.FindStringSubmatch(word); m != nil && !slices.Contains(options, m[1]) {
			return "there is no option --" + m[1]
		}
	}
	return ""
}
