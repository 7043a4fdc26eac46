// Record answers what Go's regexp says about patterns and names.
//
// It reads one JSON object a line, {"pattern": "…", "names": ["…"]}, and writes
// one a line: {"found": [true, false]}, in the order of the names, or
// {"refused": "missing closing ]"}. `cargo xtask corpus` builds and runs it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"regexp"
	"regexp/syntax"
)

type question struct {
	Pattern string   `json:"pattern"`
	Names   []string `json:"names"`
}

type answer struct {
	Found   []bool `json:"found,omitempty"`
	Refused string `json:"refused,omitempty"`
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	buffered := bufio.NewWriter(os.Stdout)
	out := json.NewEncoder(buffered)
	for {
		var q question
		if err := in.Decode(&q); err == io.EOF {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(ask(q)); err != nil {
			log.Fatal(err)
		}
	}
	if err := buffered.Flush(); err != nil {
		log.Fatal(err)
	}
}

func ask(q question) answer {
	pattern, err := regexp.Compile(q.Pattern)
	var refused *syntax.Error
	if errors.As(err, &refused) {
		return answer{Refused: string(refused.Code)}
	} else if err != nil {
		log.Fatal(err)
	}
	found := make([]bool, len(q.Names))
	for i, name := range q.Names {
		found[i] = pattern.MatchString(name)
	}
	return answer{Found: found}
}
