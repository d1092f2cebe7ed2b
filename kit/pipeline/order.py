"""Which image stands where in training: a pure function of (seed, position).

The training images follow each other without end; position q is the q-th of them from the run's
start. A pass is cut into groups of `shuffle_shards` shards, in an order of its own; a group is
read whole and its images are permuted among each other, while the next one is being read. All
permutations are stateless, keyed by the seed, the pass and the group; tf.random's seed plays no
part. TensorFlow may draw them otherwise in another of its releases.
"""

import bisect
import sys

import tensorflow as tf

from kit.data import manifest
from kit.pipeline import preprocessing

SHARDS, RECORDS = 2, 3  # purposes of a permutation; crops and flips use the seed itself and 1


def ordered_records(*, data_dir, shuffle_shards, seed, start=0, wanted=lambda position: True):
    """Give endless (position int64, serialized Example), from the position `start` on.

    What stands before `start` is not decoded; of earlier groups nothing is even read. `wanted`
    says of a position, a tensor, whether its image is given. Holds two groups in memory: the one
    that is handed out and the next.
    """
    shards = manifest.read_manifest(data_dir)["splits"]["train"]["shards"]
    counts = [shard["records"] for shard in shards]
    paths = manifest.shard_paths(data_dir, "train")
    images, groups = sum(counts), -(-len(paths) // shuffle_shards)

    def members(group):
        """Give the shards of the group and the position of its first image."""
        turn, place = group // groups, group % groups  # groups are numbered through the passes
        order = permutation(len(paths), [seed, turn], SHARDS)
        earlier = order[: place * shuffle_shards]
        first = turn * images + tf.reduce_sum(tf.gather(tf.constant(counts, tf.int64), earlier))
        return order[place * shuffle_shards : (place + 1) * shuffle_shards], first

    def read(group):
        chosen, first = members(group)
        size = tf.reduce_sum(tf.gather(tf.constant(counts, tf.int64), chosen))
        order = permutation(size, [seed, group], RECORDS)
        records = tf.data.TFRecordDataset(
            tf.gather(paths, chosen), num_parallel_reads=shuffle_shards
        )
        return records.batch(size).map(lambda records: (first, order, records))

    def hand_out(first, order, records):
        begin = tf.maximum(start - first, 0)
        places = tf.data.Dataset.range(begin, tf.size(order, tf.int64))
        places = places.filter(lambda place: wanted(first + place))
        return places.map(lambda place: (first + place, records[order[place]]))

    turn = start // images
    with tf.device("CPU:0"):
        group = bisect.bisect_right(
            range(turn * groups, (turn + 1) * groups), start, key=lambda g: int(members(g)[1])
        )
    return (
        tf.data.Dataset.range(turn * groups + group - 1, sys.maxsize)
        .flat_map(read)
        .prefetch(1)
        .flat_map(hand_out)
    )


def permutation(size, seed, purpose):
    """Give the numbers 0 to size - 1 in an order that depends on the arguments alone.

    `seed` is two integers; `purpose`, one more, keeps permutations of one seed apart.
    """
    return tf.random.experimental.stateless_shuffle(
        tf.range(tf.cast(size, tf.int64)), preprocessing.fold_in(seed, purpose), alg="philox"
    )
