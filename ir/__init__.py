"""What a program is: types, operations, the graph, reading, printing, verifying. Imports nothing of ours."""
