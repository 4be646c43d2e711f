"""From a folder of videos to a trained model.

==================  =============================================================================
file                what it does
==================  =============================================================================
:mod:`.video_list`  lists videos and labels, of a folder per class or a CSV file
:mod:`.splitting`   training, validation and test, without dividing what belongs together
:mod:`.inspection`  decodes every video once
:mod:`.recipes`     chooses what is trained, for how long, with how much augmentation
:mod:`.configs`     writes the config of a recipe
:mod:`.workflow`    all of it, in steps that resume
==================  =============================================================================
"""
