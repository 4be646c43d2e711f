"""Prepare data sets: from the publishers' files to annotation files; check, resize, pack videos.

====================  ==========================================================================
file                  what it does
====================  ==========================================================================
:mod:`.publishers`    reads the publishers' lists: :class:`~.listing.DataSet`, nothing on disk yet
:mod:`.howto100m`     the same for HowTo100M, whose lists come from two places
:mod:`.own_data`      the same for a folder per class, or a CSV, of one's own
:mod:`.reading`       text, JSON and CSV files
:mod:`.listing`       data classes for the lists, with published sizes
:mod:`.finding`       which of the listed videos are there
:mod:`.annotations`   writes annotation files, class names, what is missing, and a manifest
:mod:`.isolation`     one call per video, in processes that may crash or hang
:mod:`.checking`      decodes every video
:mod:`.resizing`      makes every video smaller
:mod:`.transcoding`   re-encodes every video, to be read faster
:mod:`.packing`       packs videos into tar shards
====================  ==========================================================================

Nothing here needs a GPU, and nothing is downloaded.
"""

#: Exit codes of the tools: all is there; something is missing or spoiled (1 is an error in words).
COMPLETE, INCOMPLETE = 0, 3
