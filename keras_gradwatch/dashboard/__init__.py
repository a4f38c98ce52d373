"""The page that shows recorded runs: verdict, timeline, heatmap, layers."""
