module example.com/cgagent

go 1.21
