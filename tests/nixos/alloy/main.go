// Prints the blocks of an Alloy config on stdin as JSON: Alloy's own parser and evaluator read it.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/grafana/alloy/syntax/ast"
	"github.com/grafana/alloy/syntax/parser"
	"github.com/grafana/alloy/syntax/printer"
	"github.com/grafana/alloy/syntax/vm"
)

type block struct {
	Name      string         `json:"name"`
	Label     string         `json:"label"`
	Arguments map[string]any `json:"arguments"`
	Blocks    []block        `json:"blocks"`
}

func main() {
	source, err := io.ReadAll(os.Stdin)
	fail(err)
	file, err := parser.ParseFile("stdin", source)
	fail(err)
	fail(json.NewEncoder(os.Stdout).Encode(read(file.Body).Blocks))
}

func read(body ast.Body) block {
	found := block{Arguments: map[string]any{}, Blocks: []block{}}
	for _, statement := range body {
		switch it := statement.(type) {
		case *ast.AttributeStmt:
			found.Arguments[it.Name.Name] = value(it.Value)
		case *ast.BlockStmt:
			inner := read(it.Body)
			inner.Name, inner.Label = strings.Join(it.Name, "."), it.Label
			found.Blocks = append(found.Blocks, inner)
		}
	}
	return found
}

// value evaluates an expression; one that refers to other components is returned as text.
func value(expression ast.Expr) any {
	var found any
	if err := vm.New(expression).Evaluate(nil, &found); err == nil {
		return found
	}
	var text bytes.Buffer
	fail(printer.Fprint(&text, expression))
	return text.String()
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
