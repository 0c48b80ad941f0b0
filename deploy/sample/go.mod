module example.com/cgagent/orders

go 1.24
