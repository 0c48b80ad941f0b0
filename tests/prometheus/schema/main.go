// Command schema holds a dashboard to the schemas that Grafana publishes for its dashboards, the panels and the
// Prometheus data source: it prints each field that they do not know, that is missing, or is of another type.
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	content, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var read dashboard.Dashboard
	unread := read.UnmarshalJSONStrict(content)
	for _, err := range []error{unread, read.Validate()} {
		// A list of none is no nil.
		if err != nil && err.Error() != "" {
			fmt.Println(err)
		}
	}
}
