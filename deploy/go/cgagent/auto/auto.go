// Package auto makes a program follow its container's limits when it is imported for its effect:
//
//	import _ "example.com/cgagent/auto"
//
// Options come from the environment, as cgagent.FromEnvironment says. Problems go to the standard logger.
package auto

import (
	"context"
	"log"

	"example.com/cgagent"
)

func init() {
	options, err := cgagent.FromEnvironment()
	if err == nil {
		options.Report = func(line string) { log.Print(line) }
		err = cgagent.Follow(context.Background(), options)
	}
	if err != nil {
		log.Printf("cgagent: limits are not followed: %v", err)
	}
}
