"""The dashboard of recorded runs, in HTML: verdict, timeline, heatmap, layers."""
