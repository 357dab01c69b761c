"""One file per chart: records → a plotly figure, and the arrays that change under it. Pure; drawing thread."""
