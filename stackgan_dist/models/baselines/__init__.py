"""The models that the paper compares StackGAN with: GAN-INT-CLS and GAWWN."""
