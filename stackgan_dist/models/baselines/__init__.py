"""Other models than StackGAN: GAN-INT-CLS and GAWWN, which the paper compares with, and DF-GAN."""
