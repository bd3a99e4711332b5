"""Graph in, graph out: simplify, tangent, adjoint, legalize, cost. Imports `ir` alone."""
