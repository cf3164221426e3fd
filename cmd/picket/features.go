package main

import (
	"context"
	"encoding/json"

	"github.com/picket-ids/picket/features"
	"github.com/picket-ids/picket/runtime/report"
)

func listFeatures(_ context.Context, args []string, std stdio) (int, error) {
	fs := flagSet("features", std)
	asJSON := fs.Bool("json", false, "list as JSON")
	markdown := fs.Bool("markdown", false, "list as Markdown, as in docs/features.md")
	if err := parse(fs, args); err != nil {
		return 0, err
	}
	if *asJSON {
		e := json.NewEncoder(std.out)
		e.SetIndent("", "  ")
		return exitNothing, e.Encode(features.All())
	}
	if *markdown {
		return exitNothing, report.DictionaryMarkdown(std.out, features.All())
	}
	return exitNothing, report.Dictionary(std.out, features.All())
}
