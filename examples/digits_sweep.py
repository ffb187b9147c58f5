"""A hyperparameter sweep over scikit-learn's bundled digits: foreach, train, join, evaluate.

Every setting is trained and cross-validated by a task of its own, on all workers at once. The join
picks the best one; the last step measures it on images that no training has seen.

Run it with `asyncflow run examples/digits_sweep.py`, or with `--folds 3` for a quicker look.
"""

from __future__ import annotations

from asyncflow import FlowSpec, Parameter, step


class DigitsSweep(FlowSpec):
    """Find the best support-vector classifier for handwritten digits."""

    costs = Parameter("costs", default="1,10,100", separator=",", help="values of C to try")
    gammas = Parameter(
        "gammas", default="0.0001,0.001,0.01", separator=",", help="kernel widths to try"
    )
    folds = Parameter("folds", default=5, help="folds of the cross-validation")
    seed = Parameter("seed", default=7, help="how the images are divided")

    @step
    def start(self) -> None:
        """Load the 1,797 images and put a quarter of them aside."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, digits = load_digits(return_X_y=True)
        self.train_x, self.test_x, self.train_y, self.test_y = train_test_split(
            images, digits, test_size=0.25, random_state=self.seed
        )
        self.settings = [
            {"C": float(cost), "gamma": float(gamma)}
            for cost in self.costs
            for gamma in self.gammas
        ]
        print(f"{len(self.train_x)} images to learn from, {len(self.settings)} settings to try")
        self.next(self.train, foreach="settings")

    @step
    def train(self) -> None:
        """Train one setting."""
        from sklearn.model_selection import cross_val_score
        from sklearn.svm import SVC

        self.setting = self.input
        model = SVC(**self.setting)
        scores = cross_val_score(model, self.train_x, self.train_y, cv=self.folds)
        self.score = float(scores.mean())
        self.model = model.fit(self.train_x, self.train_y)
        print(f"C={self.setting['C']:g} gamma={self.setting['gamma']:g}: {self.score:.4f}")
        self.next(self.choose)

    @step
    def choose(self, inputs) -> None:
        """Keep the best model."""
        best = max(inputs, key=lambda task: task.score)
        self.model, self.setting, self.score = best.model, best.setting, best.score
        self.tried = sorted(((task.score, task.setting) for task in inputs), key=lambda t: -t[0])
        self.merge_artifacts(inputs, include=["test_x", "test_y"])
        self.next(self.evaluate)

    @step
    def evaluate(self) -> None:
        """Measure it on the images put aside."""
        from sklearn.metrics import accuracy_score, confusion_matrix

        predicted = self.model.predict(self.test_x)
        self.accuracy = float(accuracy_score(self.test_y, predicted))
        self.confusion = confusion_matrix(self.test_y, predicted)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Say what was found."""
        print(f"Best: C={self.setting['C']:g} gamma={self.setting['gamma']:g}")
        print(f"{self.accuracy:.1%} of {len(self.test_y)} held-out images are read right")
        print("Confusion matrix (rows: what it is, columns: what was read):")
        for row in self.confusion:
            print(" ".join(f"{count:3d}" for count in row))


if __name__ == "__main__":
    DigitsSweep()
