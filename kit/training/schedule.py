"""The callback that sets the learning rate of each epoch or step."""

import keras


class LearningRateScheduler(keras.callbacks.LearningRateScheduler):
    """Set the learning rate of the section Schedule as each epoch or step begins.

    The optimizer counts the steps, so that a resumed training continues the schedule. An epoch's
    logs hold the rate of its last step.
    """

    def __init__(self, schedule, *, steps_per_epoch):
        super().__init__(lambda epoch, rate: schedule.rate(epoch))
        self.rate, self.steps_per_epoch = schedule.rate, steps_per_epoch
        self.each_step = schedule.schedule_update == "step"

    def on_epoch_begin(self, epoch, logs=None):
        if self.each_step:
            self.first_step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        else:
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        if self.each_step:
            step = self.first_step + batch
            self.model.optimizer.learning_rate = self.rate(step / self.steps_per_epoch)
