"""How the model that ships with the package is made: trained, quantised, written as a `.tflite` file."""
