"""All objects of an image, without prompts of the user.

What finds them is a function of an image, :class:`~.instances.InstanceGenerator`: ``MaskGenerator``
(``generator``) asks any model with prompts on a grid of points, and decoders that predict instances
themselves bring a generator of their own. Each returns
:class:`~.instances.Instances`, which writers, metrics and pictures take.
"""
