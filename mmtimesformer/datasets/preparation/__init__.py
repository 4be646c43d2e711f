"""What a data set's publishers hand out becomes annotation files that a config can name.

The way of every data set is the same, and so is the way through these files:

====================  ==========================================================================
file                  what it does
====================  ==========================================================================
:mod:`.publishers`    reads the publishers' lists: :class:`~.listing.DataSet`, nothing on disk yet
:mod:`.howto100m`     the same for HowTo100M, whose lists come from two places
:mod:`.own_data`      the same for a folder per class, or a CSV, of one's own
:mod:`.reading`       text, JSON and CSV files
:mod:`.listing`       what a data set says it holds, and how large it was when published
:mod:`.finding`       which of the listed videos are there
:mod:`.annotations`   writes annotation files, class names, what is missing, and a manifest
:mod:`.isolation`     one call per video, in processes that may crash or hang
:mod:`.checking`      decodes every video
:mod:`.resizing`      makes every video smaller
:mod:`.transcoding`   writes every video anew, to be read faster
:mod:`.packing`       packs videos into shards, plain tar files
====================  ==========================================================================

Nothing here needs a GPU, and nothing is downloaded.
"""

#: Exit codes of the tools: all is there; something is missing or spoiled (1 is an error in words).
COMPLETE, INCOMPLETE = 0, 3
