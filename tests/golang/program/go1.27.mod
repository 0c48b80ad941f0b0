module example.com/cgagent/limits

go 1.27
