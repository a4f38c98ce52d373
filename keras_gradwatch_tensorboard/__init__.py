"""The tab "Gradients" of TensorBoard.

A package of its own: TensorBoard imports it whenever it starts, and that must not load
Keras. `keras_gradwatch` is imported when the tab is opened.
"""
